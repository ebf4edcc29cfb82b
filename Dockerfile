# The server in a container. Which torch it gets is the package index's choice; --build-arg TORCH_INDEX=ADDRESS names
# another one, such as that of the builds for CPUs alone or for a version of CUDA.
FROM python:3.12-slim-bookworm AS build

ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/uniaudio2
ENV PATH=/opt/uniaudio2/bin:$PATH
# hadolint ignore=DL3013 (the ranges are those of pyproject.toml; nothing is pinned for users)
RUN pip install "torch>=2.11" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY uniaudio2 uniaudio2
RUN pip install ".[serve,media]"

FROM python:3.12-slim-bookworm

RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin uniaudio2 \
    && install --directory --owner=uniaudio2 /voices
COPY --from=build /opt/uniaudio2 /opt/uniaudio2
# One thread for each request; nothing is written but voices, so the file system may be read-only.
ENV PATH=/opt/uniaudio2/bin:$PATH OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
USER 10001
VOLUME /voices
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT ["uniaudio2", "serve", "--host", "0.0.0.0", "--port", "8000", "--voices", "/voices"]
