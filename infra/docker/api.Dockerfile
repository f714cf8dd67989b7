# The API, and the operator's commands: no torch.
FROM python:3.11-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md ./
COPY core core
COPY api api
COPY migrations migrations
RUN pip install --no-cache-dir -c constraints.txt '.[api]'
USER nobody
CMD ["lockstepd", "serve"]
