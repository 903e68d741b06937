"""`python -m convoy score`: a table or folder of inputs to a Parquet file of predictions."""
