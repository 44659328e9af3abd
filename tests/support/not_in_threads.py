"""The tests that do not apply to `workers_runtime thread`, each with its reason. All others run with both runtimes.

A test is named by a pattern of its id without the interpreter and the runtime, as fnmatch reads it, but for brackets.
"""

from fnmatch import fnmatchcase

import pytest

_GEVENT = "gevent patches a whole process, so it and ESGI are refused; the unit tests of the settings have that"
_ONE_WORKER = "an interpreter with a global lock runs one worker; test_thread.py has what it says of more"
_KILL = "a thread cannot be killed; it takes Caddy with it"
_CADDYS = "the process is Caddy's own"
_DEFAULT = "the default is processes"

REASONS = {
    "*gevent*": _GEVENT,
    "*esgi*": _GEVENT,
    "test_examples.py::*": "an example's Caddyfile says itself how workers run",
    "test_lifecycle.py::test_killed_workers_are_replaced_and_no_get_fails": _KILL,
    "test_lifecycle.py::test_a_daemon_of_the_apps_keeps_no_killed_worker_in_its_place": _KILL,
    "test_lifecycle.py::test_workers_start_although_somebody_has_cleaned_up": _KILL,
    "test_lifecycle.py::test_get_of_a_killed_worker_is_replayed": _KILL,
    "test_lifecycle.py::test_post_of_a_killed_worker_gets_502_and_no_other_request_notices": _KILL,
    "test_lifecycle.py::test_workers_end_when_caddy_is_killed": "there is no process that could stay",
    "test_lifecycle.py::test_reload_of_the_app_drops_no_request": (
        "it tells old workers from new ones by their process; test_thread_reload.py tells them by their modules"
    ),
    "test_recycling.py::test_memory": "the process is Caddy's own, and so is its memory",
    "threats/test_tenants.py::*": "dynamic apps need processes",
    "test_dynamic.py::*": "dynamic apps need processes; the unit tests of the settings have the refusal",
    "test_python_server.py::test_workers": _ONE_WORKER,
    "test_python_server.py::test_threads": "it counts a process's threads, and Caddy has others",
    "test_settings.py::test_simple_form": _DEFAULT,
    "conformance/test_files.py::TestWhole::test_the_file_goes_on_when_the_worker_has_gone*": _KILL,
    "conformance/test_files.py::test_a_gigabyte_costs_the_worker_next_to_nothing*": _CADDYS,
    "conformance/test_files.py::test_what_frameworks_send*": _CADDYS,
    "threats/test_frames.py::*": "the app writes to its process's socket, and a thread's has no number that it knows",
    "threats/test_internals.py::test_threat_9_an_apps_process_shows_nothing_of_the_server*": _CADDYS,
    "threats/test_internals.py::test_threat_9_a_worker_has_no_descriptor_of_another_or_of_caddy*": _CADDYS,
    "test_websocket_idle.py::test_a_worker_that_dies_ends_its_sockets_with_1011": _KILL,
    "test_request_timeout.py::test_a_worker_that_is_stopped_is_replaced": "to stop a thread is to stop Caddy",
    "test_closing.py::*": _ONE_WORKER,
    "test_scaling.py::test_workers_come*": "the number of threads does not change",
    "test_scaling.py::test_the_first_request*": "the number of threads does not change",
    "test_scaling.py::test_a_first_worker*": "the number of threads does not change",
    "test_scaling.py::test_a_version_that_does_not_start*": "the number of threads does not change",
    "test_scaling.py::test_autoreload_says_why*": "the number of threads does not change",
    "test_scaling.py::test_a_deploy_begins*": "the number of threads does not change",
    "threats/test_killed_workers.py::*": _KILL,
    "threats/test_restart_storm.py::*": _KILL,
    "threats/test_orphans.py::*": "there is no process that could stay, or be reaped",
    "test_settings.py::test_one_worker_for_each_processor_by_default": _ONE_WORKER,
}


def reason(item: pytest.Item) -> str | None:
    """Why a test that runs with threads does not apply, None if it does."""
    return next((why for pattern, why in REASONS.items() if fnmatchcase(_plain_id(item), _escape(pattern))), None)


def unused(items: list[pytest.Item]) -> list[str]:
    """The patterns that fit none of these tests."""
    ids = [_plain_id(item) for item in items]
    return [pattern for pattern in REASONS if not any(fnmatchcase(name, _escape(pattern)) for name in ids)]


def _plain_id(item: pytest.Item) -> str:
    """The id without what `worker` stands for in it."""
    callspec = getattr(item, "callspec", None)
    worker = str(callspec.params["worker"]) if callspec and "worker" in callspec.params else ""
    node_id, group = item.nodeid, item.get_closest_marker("xdist_group")
    if group is not None:  # pytest-xdist has put it behind the id
        node_id = node_id.removesuffix(f"@{group.args[0]}")
    name, _, parameters = node_id.partition("[")
    rest = parameters.removesuffix("]").replace(worker, "").strip("-").replace("--", "-")
    return f"{name}[{rest}]" if rest else name


def _escape(pattern: str) -> str:
    return pattern.replace("[", "[[]")
