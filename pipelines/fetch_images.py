"""Published image files -> data/raw/image, verified."""

from convoy import layout
from convoy.sources import fashion_mnist


def main() -> None:
    """Fetch Fashion-MNIST."""
    fashion_mnist.fetch(layout.raw("image"))


if __name__ == "__main__":
    main()
