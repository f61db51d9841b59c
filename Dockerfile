# What the notebooks and the sweeps need, for CPU and NVIDIA GPU: docker build -t ddlib .
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /ddlib
COPY . .
RUN pip install --no-cache-dir -c constraints.txt -e ".[notebooks,sweeps]"
ENV DDLIB_RUNS=/runs DDLIB_CACHE=/runs/ptms DDLIB_DATA=/runs/data
CMD ["python", "workflow/sweep.py", "params/sweeps/smoke.yaml", "--status"]
