"""The policies for comparison, by name."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler_svc.domain.policies.baselines.dynamo_cost import make_dynamo_cost
from scheduler_svc.domain.policies.baselines.earliest_deadline import make_earliest_deadline
from scheduler_svc.domain.policies.baselines.least_kv import make_least_kv
from scheduler_svc.domain.policies.baselines.least_predicted_work import make_least_predicted_work
from scheduler_svc.domain.policies.baselines.least_requests import make_least_requests
from scheduler_svc.domain.policies.baselines.llmd import make_llmd
from scheduler_svc.domain.policies.baselines.lmetric import make_lmetric
from scheduler_svc.domain.policies.baselines.power_of_two import make_power_of_two
from scheduler_svc.domain.policies.baselines.prefix_hash import make_prefix_hash
from scheduler_svc.domain.policies.baselines.random_choice import make_random
from scheduler_svc.domain.policies.baselines.round_robin import make_round_robin
from scheduler_svc.domain.policies.baselines.session_affinity import make_session_affinity
from scheduler_svc.domain.policies.baselines.shortest_job import make_shortest_job
from scheduler_svc.domain.policies.baselines.shortest_prompt import make_shortest_prompt
from scheduler_svc.domain.policies.builtin import PolicyFactory

BASELINES: Mapping[str, PolicyFactory] = {
    "round_robin": make_round_robin,
    "random": make_random,
    "power_of_two": make_power_of_two,
    "least_requests": make_least_requests,
    "least_kv": make_least_kv,
    "session_affinity": make_session_affinity,
    "prefix_hash": make_prefix_hash,
    "llmd": make_llmd,
    "dynamo_cost": make_dynamo_cost,
    "lmetric": make_lmetric,
    "least_predicted_work": make_least_predicted_work,
    "shortest_prompt": make_shortest_prompt,
    "shortest_job": make_shortest_job,
    "earliest_deadline": make_earliest_deadline,
}
