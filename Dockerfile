# One image per role, for amd64 and arm64:
#
#   docker build --build-arg EXTRAS=edge  -t shoal-edge .       edge nodes and simulated machines
#   docker build --build-arg EXTRAS=cloud -t shoal-cloud .      ingest, planning, store
#   docker buildx build --platform linux/amd64,linux/arm64 …    both machines at once
#
# The versions of requirements.lock; a user without rights; nothing but Python and what the role needs.
ARG PYTHON=3.12.11-slim-bookworm

FROM python:${PYTHON} AS build
ARG EXTRAS=edge
WORKDIR /src
RUN python -m venv /opt/shoal
# The dependencies first, with empty packages: a change of ours does not fetch them again.
COPY pyproject.toml requirements.lock README.md LICENSE ./
RUN mkdir messages edge cloud firmware_sim shoal \
    && touch messages/__init__.py edge/__init__.py cloud/__init__.py firmware_sim/__init__.py shoal/__init__.py \
    && /opt/shoal/bin/pip install --no-cache-dir --disable-pip-version-check -c requirements.lock ".[${EXTRAS}]"
COPY messages messages
COPY edge edge
COPY cloud cloud
COPY firmware_sim firmware_sim
COPY shoal shoal
RUN rm -rf build *.egg-info \
    && /opt/shoal/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --force-reinstall . \
    && /opt/shoal/bin/pip uninstall --yes --quiet pip

FROM python:${PYTHON}
ARG EXTRAS=edge
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Shoal (${EXTRAS})" \
      org.opencontainers.image.description="A factory floor as a self-scheduling, carbon-aware swarm over one MQTT bus" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --system --gid 10001 shoal \
    && useradd --system --uid 10001 --gid shoal --home-dir /var/lib/shoal --shell /usr/sbin/nologin shoal \
    && install -d -o shoal -g shoal -m 0750 /var/lib/shoal
COPY --from=build /opt/shoal /opt/shoal
ENV PATH=/opt/shoal/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/shoal
# Healthy: connected to a broker, at port 1883 (075B) or 8883 (22B3). Costs nothing on a small computer.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD grep -Eqs ":(075B|22B3) 01 " /proc/net/tcp /proc/net/tcp6
STOPSIGNAL SIGTERM
ENTRYPOINT ["shoal"]
CMD ["--help"]
