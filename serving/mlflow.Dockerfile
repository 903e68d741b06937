# The MLflow UI over the SQLite store of the repository; it trains nothing and loads no model.
FROM python:3.11-slim
COPY requirements.lock /tmp/requirements.lock
# uv verifies the sha256 of each file that it installs; its own comes from the same lock file.
RUN cd /tmp && sed -n '/^uv==/,/[^\\]$/p' requirements.lock > uv.txt \
    && pip install --no-cache-dir --require-hashes -r uv.txt \
    && uv pip install --no-cache --system -c requirements.lock --build-constraints requirements.lock mlflow
# docker-compose.yml makes the owner of the database the user, who has no home here.
ENV HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
    MLFLOW_DISABLE_TELEMETRY=true \
    DO_NOT_TRACK=true
USER nobody
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://localhost:5000/health', timeout=2)"]
