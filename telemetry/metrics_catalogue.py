"""Every metric of every service: its name, labels, buckets, and what it says.

`make docs` makes the tables of docs/metrics.md from this.
"""

from typing import Final

from telemetry.metrics_instruments import Counter, Gauge, Histogram, Instrument

CALL_LABELS: Final = ("grpc_type", "grpc_service", "grpc_method")

CALL_EDGES_S: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)

ANSWER_EDGES_S: Final = tuple(0.0005 * 2**step for step in (*range(1, 17), 19))
"""Every fourth edge of those that the front-ends count in."""

WAIT_EDGES_S: Final = (*CALL_EDGES_S, 300.0, 1800.0)
"""Operations may wait for an hour."""

WORK_EDGES_S: Final = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)

REDIS_EDGES_S: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0),
)

BATCH_EDGES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# --- All ----------------------------------------------------------------------

PROCESSES: Final = Gauge(
    "despacho_processes", "Processes that these figures are of.", over_processes="sum"
)

# --- Front-end and worker -----------------------------------------------------

AVOIDED: Final = Counter(
    "despacho_work_avoided_total",
    "Images that were not inferred, as nobody waited for them any more.",
    ("model", "stage", "cause"),
)
WASTED: Final = Counter(
    "despacho_work_wasted_total",
    "Images that were inferred, and then nobody wanted the answer.",
    ("model", "cause"),
)
REDIS_ROUND_TRIP: Final = Histogram(
    "despacho_redis_round_trip_seconds",
    "From sending commands to Redis until the last reply was read, by what they were for.",
    ("purpose",),
    edges=REDIS_EDGES_S,
)
REDIS_BROKEN: Final = Counter(
    "despacho_redis_failures_total",
    "Round trips to Redis that failed, by what they were for.",
    ("purpose",),
)

# --- Front-end ----------------------------------------------------------------

CALLS_STARTED: Final = Counter(
    "grpc_server_started_total",
    "Calls that began. One that ends before its request has come is not among them.",
    CALL_LABELS,
)
CALLS_HANDLED: Final = Counter(
    "grpc_server_handled_total",
    "Calls that ended, by their status.",
    (*CALL_LABELS, "grpc_code"),
)
CALL_SECONDS: Final = Histogram(
    "grpc_server_handling_seconds",
    "From the arrival of a call until its end. Streams take as long as their callers like.",
    CALL_LABELS,
    edges=CALL_EDGES_S,
)
ANSWER_SECONDS: Final = Histogram(
    "despacho_answer_seconds",
    "From accepting an image until having its answer; operations are not among them.",
    ("model",),
    edges=ANSWER_EDGES_S,
)
FAILURES: Final = Counter(
    "despacho_failures_total",
    "Images, or calls with none, that got no answer, by the reason that callers are told;"
    " refusals are among them, and a `ModelInfer` counts once. Without a model: it was not known"
    " yet, or is not there.",
    ("model", "reason"),
)
IN_FLIGHT_JOBS: Final = Gauge(
    "despacho_in_flight_jobs", "Images that the front-end waits for.", over_processes="sum"
)
IN_FLIGHT_BYTES: Final = Gauge(
    "despacho_in_flight_bytes", "Bytes of the images that the front-end waits for."
)
LATE_REPLIES: Final = Counter(
    "despacho_late_replies_total", "Replies that came when nobody waited for them any more."
)
REPLY_LAG: Final = Histogram(
    "despacho_reply_lag_seconds",
    "From Redis having a reply until the front-end took it: of the oldest in each read.",
    edges=REDIS_EDGES_S,
)
REDIS_UP: Final = Gauge(
    "despacho_redis_up",
    "1 while the front-end can reach Redis, 0 while it cannot; the least of its processes.",
    over_processes="min",
)
QUEUE_JOBS: Final = Gauge(
    "despacho_queue_jobs",
    "Jobs of all front-ends in a queue: `waiting`, or `claimed` by a worker.",
    ("model", "queue", "state"),
    over_processes="max",
)
QUEUE_OLDEST: Final = Gauge(
    "despacho_queue_oldest_seconds",
    "Since when the oldest job of a queue is there, claimed ones included; 0: there is none.",
    ("model", "queue"),
    over_processes="max",
)
QUEUE_BYTES: Final = Gauge(
    "despacho_queue_bytes",
    "What the jobs of a model that wait or are claimed count for in its limit.",
    ("model",),
    over_processes="max",
)
WORKERS: Final = Gauge(
    "despacho_workers",
    "Live workers, over all machines: `ready`, or still `loading`.",
    ("model", "state"),
    over_processes="max",
)

# --- Worker -------------------------------------------------------------------

QUEUE_SECONDS: Final = Histogram(
    "despacho_queue_seconds",
    "From an image being queued until its decoding began.",
    ("model",),
    edges=WAIT_EDGES_S,
)
DECODE_SECONDS: Final = Histogram(
    "despacho_decode_seconds",
    "How long an image took to decode; those that could not be are not among them.",
    ("model",),
    edges=WORK_EDGES_S,
)
INFERENCE_SECONDS: Final = Histogram(
    "despacho_inference_seconds",
    "How long a batch was in the model.",
    ("model",),
    edges=WORK_EDGES_S,
)
BATCH_IMAGES: Final = Histogram(
    "despacho_batch_images", "How many images a batch had.", ("model",), edges=BATCH_EDGES
)
IMAGES: Final = Counter(
    "despacho_images_total",
    "Images that this worker ended: `completed`; `failed`, as the image is no good;"
    " `inference_failed`, as the model, or the worker, is not; `expired`; or `poisoned`, which is"
    " set aside as a dead letter. Whether anybody took the answer is not asked.",
    ("model", "outcome"),
)
REDELIVERIES: Final = Counter(
    "despacho_redeliveries_total",
    "Jobs that this worker took from a lost one: their second attempt, or a later one.",
    ("model",),
)
IN_HAND_JOBS: Final = Gauge(
    "despacho_in_hand_jobs", "Jobs that the worker has claimed and not ended.", ("model",)
)
IN_HAND_BYTES: Final = Gauge("despacho_in_hand_bytes", "Bytes of the images of those.", ("model",))

# --- Gateway ------------------------------------------------------------------

REQUESTS: Final = Counter(
    "despacho_http_requests_total",
    "Requests that were answered, by route, such as `/v1/models`; `none`: there is no such path,"
    " or not with this method.",
    ("method", "route", "status"),
)
REQUEST_SECONDS: Final = Histogram(
    "despacho_http_request_seconds",
    "From a request being read until its answer began; what is streamed follows after that.",
    ("method", "route"),
    edges=CALL_EDGES_S,
)

SHARED: Final = (AVOIDED, WASTED, REDIS_ROUND_TRIP, REDIS_BROKEN)
SERVER: Final = (
    *(CALLS_STARTED, CALLS_HANDLED, CALL_SECONDS, ANSWER_SECONDS, FAILURES),
    *(QUEUE_JOBS, QUEUE_OLDEST, QUEUE_BYTES, WORKERS, IN_FLIGHT_JOBS, IN_FLIGHT_BYTES),
    *(LATE_REPLIES, REPLY_LAG, REDIS_UP),
)
WORKER: Final = (
    *(QUEUE_SECONDS, DECODE_SECONDS, INFERENCE_SECONDS, BATCH_IMAGES, IMAGES, REDELIVERIES),
    *(IN_HAND_JOBS, IN_HAND_BYTES),
)
GATEWAY: Final = (REQUESTS, REQUEST_SECONDS)
INSTRUMENTS: Final[tuple[Instrument, ...]] = (PROCESSES, *SHARED, *SERVER, *WORKER, *GATEWAY)
"""All; a page leaves out those that have nothing to say."""
