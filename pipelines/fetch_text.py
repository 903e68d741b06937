"""Published reviews -> data/raw/text, verified."""

from convoy import layout
from convoy.sources import imdb_reviews


def main() -> None:
    """Fetch the IMDB reviews."""
    imdb_reviews.fetch(layout.raw("text"))


if __name__ == "__main__":
    main()
