# One image for every part of Jetrelay; the command says which part. See docker-compose.yml.

FROM python:3.12-slim AS build
RUN python -m venv /opt/venv
COPY requirements.txt /
RUN /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -r /requirements.txt

FROM python:3.12-slim
RUN useradd --system --uid 10001 --create-home --home-dir /data jetrelay
COPY --from=build /opt/venv /opt/venv
COPY . /app
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    JETRELAY_DATA_DIR=/data \
    JETRELAY_HOST=0.0.0.0 \
    PORT=8000
USER jetrelay
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# For `up` and the web process, which answer it; parts that serve nothing switch it off.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(u.Request('http://127.0.0.1:' + os.environ['PORT'] + '/health', headers={'Host': 'localhost'}), timeout=4)"]
# Everything in one container: SQLite and secrets in /data. It stops its children within 20 s: docker stop --time 30.
CMD ["python", "manage.py", "up"]
