# One image for every part of Jetrelay; the command says which part. See docker-compose.yml.

# The line of Python is chosen here; its patches and Debian's come with each build (docker build --pull).
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim-bookworm AS build
# Wheels only, each with a hash that is known: nothing is compiled, and nothing comes in that was not locked. The
# environment gets no pip of its own.
RUN python -m venv --without-pip /opt/venv
COPY requirements.lock /
RUN python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check --only-binary :all: --require-hashes --requirement /requirements.lock
COPY . /app
# Who runs it may write nothing here. By hash and not by time, which not every copy keeps.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app

FROM python:${PYTHON_VERSION}-slim-bookworm
# The same as jetrelay.__version__; a test compares them.
ARG VERSION=0.2.0
LABEL org.opencontainers.image.title="Jetrelay" \
      org.opencontainers.image.description="Events in, signed webhooks out" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
RUN groupadd --system --gid 10001 jetrelay && useradd --system --uid 10001 --gid 10001 --create-home --home-dir /data jetrelay && chmod 0700 /data
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    JETRELAY_DATA_DIR=/data \
    JETRELAY_HOST=0.0.0.0 \
    PORT=8000
# By number, so that a cluster that asks for "not root" can see that it is not.
USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# For `up` and the web process, which answer it; parts that serve nothing switch it off.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "subscriptions.ourselves"]
# Everything in one container: SQLite and secrets in /data. It stops its children within 20 s: docker stop --time 30.
CMD ["python", "manage.py", "up"]
