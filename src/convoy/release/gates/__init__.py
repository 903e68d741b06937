"""The gates that a challenger must pass: evidence, rules, report."""
