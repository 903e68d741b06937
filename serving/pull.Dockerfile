# Brings the registry's champion to deployed/: MLflow's client, no server, no torch. Built from the repository root.
FROM python:3.11-slim
WORKDIR /build
COPY LICENSE pyproject.toml requirements.lock ./
# uv verifies the sha256 of each file that it installs; its own comes from the same lock file.
RUN sed -n '/^uv==/,/[^\\]$/p' requirements.lock > uv.txt && pip install --no-cache-dir --require-hashes -r uv.txt
RUN mkdir src \
    && uv pip install --no-cache --system -c requirements.lock --build-constraints requirements.lock ".[pull]"
COPY src src
RUN uv pip install --no-cache --system --build-constraints requirements.lock --no-deps --reinstall .
# docker-compose.yml makes the owner of deployed/ the user.
USER nobody
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
CMD ["python", "-m", "convoy", "pull", "--every", "30"]
