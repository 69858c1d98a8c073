# The scheduler: Python and the packages in docker/scheduler.lock.  No vLLM, no PyTorch, no compiler, no pip.
# Build from the repository's root:  docker build -f docker/scheduler.Dockerfile -t sage-scheduler .

ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# Two environments: the image gets the one without pip.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/sage
# Compiles the scheduler's domain (setup.py).  The image gets what it made.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY docker/scheduler.lock docker/
RUN /opt/build/bin/pip --python /opt/sage/bin/python install --no-deps --require-hashes -r docker/scheduler.lock
COPY requirements.lock ./
RUN sed -n 's/ \\$//; /^[A-Za-z0-9._-]*==/p' requirements.lock >versions.txt \
    && /opt/build/bin/pip install --constraint versions.txt setuptools mypy numpy
COPY pyproject.toml setup.py README.md LICENSE ./
COPY protos protos
COPY scheduler_svc scheduler_svc
# The executor and sagectl are not in this image, so their commands would fail.
RUN SAGE_COMPILE=1 /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/build/bin/pip --python /opt/sage/bin/python install --no-deps /wheels/*.whl \
    && rm /opt/sage/bin/sage-executor /opt/sage/bin/sagectl
COPY docker/health_probe.py /opt/sage/

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin sage
COPY --from=build /opt/sage /opt/sage
# A volume that is mounted here belongs to the service's user.
RUN install --directory --mode=0700 --owner=sage /state
# Listening on all addresses needs TLS and identities, or SAGE_SCHEDULER_INSECURE=true; without either the process exits with an
# error.
ENV PATH=/opt/sage/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SAGE_SCHEDULER_LISTEN=0.0.0.0:50051 \
    SAGE_SCHEDULER_LOG_FORMAT=json
USER 10001
WORKDIR /opt/sage
EXPOSE 50051 9464
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 \
    CMD ["python", "/opt/sage/health_probe.py", "127.0.0.1:50051"]
# Process 1 is the service itself, so that SIGTERM reaches it and it drains.
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "scheduler_svc"]
