"""The bundle: its format, and how it predicts, explains and reads in pieces; without torch."""
