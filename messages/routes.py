"""The topic map: every route of the bus. `docs/topics.md`, the schemas and the access rules are made from it."""

from __future__ import annotations

from messages.contracts import (
    Action,
    Batch,
    Burst,
    Capability,
    Choice,
    Choices,
    Envelope,
    Health,
    Latest,
    Order,
    PlanAck,
    PlanInForce,
    Presence,
    Progress,
    Signal,
    StoredThrough,
    Taken,
)
from messages.learning import ArtefactPart, ModelReport, Release, Round, Update
from messages.negotiation import (
    Agenda,
    Award,
    AwardAck,
    Bid,
    Delegation,
    JudgeInForce,
    Offer,
    ShopView,
    Workpiece,
)
from messages.route import Route

BURST = Route("burst", "raw/{device}", Burst, qos=1, about="columnar readings and events of one device")
TAKEN = Route(
    "taken",
    "act/{device}/taken",
    Taken,
    qos=1,
    about="bursts now on the node's disk: the device may forget them",
)
ACTION = Route("action", "act/{device}", Action, qos=1, about="what the node asks of a machine, with valid_until")
PRESENCE = Route("presence", "up/presence", Presence, qos=1, retained=True, about="online or offline; also the will")
CAPABILITY = Route(
    "capability",
    "up/capability",
    Capability,
    qos=1,
    retained=True,
    about="what the node measures, can make, runs",
)
BATCH = Route(
    "batch",
    "up/batch/{lane}",
    Batch,
    qos=1,
    about="cleaned readings and records, numbered per epoch and lane",
)
STORED = Route(
    "stored",
    "down/stored",
    StoredThrough,
    qos=1,
    retained=True,
    about="what the store holds: only this frees an outbox",
)
LATEST = Route(
    "latest",
    "up/latest/{device}",
    Latest,
    qos=0,
    retained=True,
    about="last known values, at most once a second",
)
HEALTH = Route("health", "up/health", Health, qos=0, about="counters of the node")
ORDER = Route("order", "up/order", Order, qos=1, node="site", about="production orders (role: ERP)")
SIGNAL = Route(
    "signal",
    "down/signal/{signal}",
    Signal,
    qos=1,
    retained=True,
    node="site",
    about="forecasts: carbon, tariff, …",
)
PLAN = Route(
    "plan",
    "down/plan",
    Envelope[PlanInForce],
    qos=1,
    retained=True,
    node="all",
    about="the whole plan in force; a higher counter replaces a lower",
)
PLAN_ACK = Route("plan_ack", "up/plan", PlanAck, qos=1, about="the node's acknowledgement of a plan revision")
PROGRESS = Route(
    "progress",
    "up/progress",
    Progress,
    qos=1,
    retained=True,
    node="cloud",
    about="the floor against the plan in force",
)
CHOICES = Route(
    "choices",
    "up/choices",
    Choices,
    qos=1,
    retained=True,
    node="cloud",
    about="plans that no other beats, and which of them is in force",
)
CHOICE = Route("choice", "up/choice", Choice, qos=1, node="site", about="an operator's choice among them")
JUDGE = Route(
    "judge",
    "down/judge",
    Envelope[JudgeInForce],
    qos=1,
    retained=True,
    node="all",
    about="who awards work here; after its valid_until a delegate may",
)
OFFER = Route("offer", "down/offer/{task}", Offer, qos=1, about="work to be had: able machines bid by the deadline")
BID = Route("bid", "up/bid/{task}", Bid, qos=1, about="what the node's machines promise, and why others do not")
AWARD = Route(
    "award",
    "down/award/{task}",
    Envelope[Award],
    qos=1,
    retained=True,
    about="a task is a machine's, until it is done; a higher counter replaces a lower",
)
AWARD_ACK = Route("award_ack", "up/award/{task}", AwardAck, qos=1, about="the node's answer to an award")
AGENDA = Route(
    "agenda",
    "up/agenda",
    Agenda,
    qos=1,
    retained=True,
    about="all awards the node holds, and the judge it obeys",
)

DELEGATION = Route(
    "delegation",
    "down/delegation",
    Delegation,
    qos=1,
    retained=True,
    about="to a delegate: the open jobs, should the judge go silent",
)
WORKPIECE = Route(
    "workpiece",
    "up/workpiece/{workpiece}",
    Workpiece,
    qos=1,
    retained=True,
    node="cloud",
    about="the baton: a workpiece with its whole history; the last done ones stay",
)
SHOP = Route(
    "shop",
    "up/shop",
    ShopView,
    qos=1,
    retained=True,
    node="cloud",
    about="the whole site as the judge sees it",
)
PEER_JUDGE = Route(
    "peer_judge",
    "peer/judge",
    Envelope[JudgeInForce],
    qos=1,
    retained=True,
    about="this node judges while the judge is away",
)
PEER_OFFER = Route(
    "peer_offer", "peer/offer/{task}", Offer, qos=1, about="a delegate's offer, to all nodes of the site"
)
PEER_BID = Route("peer_bid", "peer/bid/{task}", Bid, qos=1, about="a node's bid for a delegate's offer")
PEER_AWARD = Route(
    "peer_award",
    "peer/award/{task}",
    Envelope[Award],
    qos=1,
    retained=True,
    about="a delegate's award; its target says whose it is",
)
PEER_ACK = Route("peer_ack", "peer/ack/{task}", AwardAck, qos=1, about="a node's answer to a delegate's award")
PEER_AGENDA = Route(
    "peer_agenda",
    "peer/agenda",
    Agenda,
    qos=1,
    retained=True,
    about="the node's agenda, for the delegates of its site",
)

ROUND = Route(
    "round",
    "down/round",
    Envelope[Round],
    qos=1,
    retained=True,
    node="all",
    about="the round of learning together: open, or what came of it",
)
UPDATE = Route("update", "up/update/{round}", Update, qos=1, about="what a node learned in a round (safetensors)")
MODEL = Route(
    "model",
    "down/model/{model}",
    Envelope[Release],
    qos=1,
    retained=True,
    about="the version a node is to run; a higher counter replaces a lower",
)
MODEL_REPORT = Route(
    "model_report",
    "up/model/{model}",
    ModelReport,
    qos=1,
    retained=True,
    about="which version runs on a node, and how well",
)
ARTEFACT = Route(
    "artefact",
    "down/artefact/{digest}/{part}",
    ArtefactPart,
    qos=1,
    retained=True,
    node="all",
    about="bytes of a graph or of parameters, named by their SHA-256",
)

ROUTES: tuple[Route, ...] = (
    BURST,
    TAKEN,
    ACTION,
    PRESENCE,
    CAPABILITY,
    BATCH,
    STORED,
    LATEST,
    HEALTH,
    ORDER,
    SIGNAL,
    PLAN,
    PLAN_ACK,
    PROGRESS,
    CHOICES,
    CHOICE,
    JUDGE,
    OFFER,
    BID,
    AWARD,
    AWARD_ACK,
    AGENDA,
    DELEGATION,
    WORKPIECE,
    SHOP,
    PEER_JUDGE,
    PEER_OFFER,
    PEER_BID,
    PEER_AWARD,
    PEER_ACK,
    PEER_AGENDA,
    ROUND,
    UPDATE,
    MODEL,
    MODEL_REPORT,
    ARTEFACT,
)
