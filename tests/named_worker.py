"""The worker of `worker_process.py` under another name, so that one system has several models.

python -m tests.named_worker REDIS_URL JOURNAL --model NAME [--load-for-ever] [...]
"""

import os
import sys
import threading
from dataclasses import replace

from despacho.job.v1.job_pb2 import ModelCard
from tests.worker_process import arguments_parser, colours_served, serve
from worker.engine import Engine


def load_for_ever() -> Engine:
    """Load a model that is never ready."""
    threading.Event().wait()
    raise AssertionError


def main() -> int:
    """Serve the model `colours` as another one."""
    parser = arguments_parser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--load-for-ever", action="store_true")
    arguments = parser.parse_args()
    served = colours_served(arguments)
    card = ModelCard()
    card.CopyFrom(served.card)
    card.name = arguments.model
    load = load_for_ever if arguments.load_for_ever else served.load
    return serve(arguments.redis_url, replace(served, card=card, load=load))


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
