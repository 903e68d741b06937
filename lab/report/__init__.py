"""What was measured -> verdicts, and the page that shows them."""
