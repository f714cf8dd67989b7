# A GPU-pool worker and the maintenance loops, with the bundled base model.
FROM python:3.11-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md ./
COPY core core
COPY workers workers
RUN pip install --no-cache-dir -c constraints.txt '.[worker,safety]'
COPY models models
USER nobody
ENV HOME=/tmp
CMD ["lockstepd", "worker"]
