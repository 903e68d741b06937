# Brings the registry's champion to deployed/: MLflow's client, no server, no torch. Built from the repository root.
FROM python:3.11-slim
WORKDIR /build
COPY pyproject.toml requirements.lock ./
RUN mkdir src && pip install --no-cache-dir -c requirements.lock ".[pull]"
COPY src src
RUN pip install --no-cache-dir --no-deps --force-reinstall .
# docker-compose.yml makes the owner of deployed/ the user.
USER nobody
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
CMD ["python", "-m", "convoy", "pull", "--every", "30"]
