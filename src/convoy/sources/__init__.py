"""Where raw data comes from: folders, archives, tables, arrays, the packaged data sets."""
