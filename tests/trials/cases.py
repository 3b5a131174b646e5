"""The table of cases: what each runs, how often, and about how long one run takes.

A case is a list of tests. A run is one execution of all of them with one seed, in a process of its own; a test that
draws anything draws it from that seed (`support/trial.py`).
"""

import random
from dataclasses import dataclass

from mediqa_node.system.failpoint import COURIER, FORWARDER, RECEIVER, WORKER


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the matrix.

    Attributes:
        tests: node IDs of pytest.
        drawn: how many of them a run draws by its seed; 0: it runs all.
        wanted: runs until the case counts as done.
        least: runs that every case gets before any gets more.
        about_s: what one run takes on two cores that are shared; runs that cannot end within the budget are not begun.
    """

    id: str
    title: str
    tests: tuple[str, ...]
    wanted: int = 1
    least: int = 1
    about_s: float = 30.0
    drawn: int = 0

    def tests_of(self, seed: int) -> list[str]:
        """Return what the run with this seed runs."""
        if not self.drawn:
            return list(self.tests)
        return random.Random(seed).sample(self.tests, self.drawn)


_QUICK, _FULL, _GUARDS = "tests/trials/test_quick.py", "tests/trials/test_full.py", "tests/crash/test_guards.py"
_KILL, _FORWARD = "tests/crash/test_kill.py", "tests/flow/test_forwarding.py"
_KILLED_AT = f"{_KILL}::test_a_process_killed_at_a_named_place_loses_and_doubles_nothing"
_LOADS, _SPOOL = "tests/network/test_loads.py", "tests/storage/test_spool.py"
_DATABASE, _FALLEN = "tests/crash/test_database_faults.py", "tests/crash/test_fallen_worker.py"
_STATUS, _HOLES = "tests/network/test_status_table.py", "tests/network/test_holes.py"

CASES = (
    Case(
        "F1",
        "kill -9 at 4 of the named failpoints a run, drawn; random load",
        (
            *(f"{_KILLED_AT}[{place}]" for place in (*RECEIVER, *WORKER, *COURIER)),
            *(f"{_FORWARD}::test_killed_at_each_place_everything_arrives_once[{place}]" for place in FORWARDER),
        ),
        drawn=4,
        wanted=20 * len((*RECEIVER, *WORKER, *COURIER, *FORWARDER)) // 4,
        about_s=170,
    ),
    Case(
        "F2",
        "kill -9 of the whole process group at random times, 10 rounds a run",
        (f"{_KILL}::test_a_node_killed_as_a_whole_at_random_times_loses_and_doubles_nothing",),
        wanted=20,
        about_s=200,
    ),
    Case(
        "F3",
        "disk full: spool, database, log; then room again",
        (
            f"{_STATUS}::test_a_disk_below_the_watermark_answers_out_of_resources",
            f"{_STATUS}::test_a_full_disk_rejects_associations_for_now",
            f"{_STATUS}::test_a_database_that_fails_answers_out_of_resources_and_leaves_no_file",
            f"{_SPOOL}::test_nothing_is_quarantined_on_a_full_disk",
            "tests/cli/test_node_commands.py::test_status_says_that_a_full_disk_receives_nothing",
            f"{_FULL}::test_a_small_disk_fills_up_and_goes_on_once_there_is_room",
            f"{_DATABASE}::test_a_database_without_room_goes_on_once_there_is_some",
            f"{_DATABASE}::test_a_log_on_a_full_disk_stops_nothing",
        ),
        about_s=50,
    ),
    Case(
        "F4",
        "EIO, a full disk or a short write at the n-th call, every n; random faults under load",
        (
            f"{_SPOOL}::test_every_call_that_fails_leaves_the_copy_with_the_sender",
            f"{_SPOOL}::test_a_short_write_is_continued",
            f"{_SPOOL}::test_a_write_of_nothing_is_a_failure_not_an_endless_loop",
            "tests/system/test_crash_safety.py::test_a_disk_that_refuses_leaves_the_old_content",
            f"{_QUICK}::test_a_disk_that_fails_now_and_then_costs_its_sender_a_repetition",
        ),
        wanted=20,
        least=2,
        about_s=25,
    ),
    Case(
        "F5",
        "power lost after every step of a receive, and during recovery",
        (f"{_QUICK}::test_power_that_is_lost_at_any_step_takes_nothing_that_was_acknowledged",),
        wanted=20,
        least=2,
        about_s=60,
    ),
    Case(
        "F6",
        "an archive that is down, silent, slow, rejects, aborts, refuses, loses its answer: reports and forwards",
        (
            "tests/flow/test_delivery.py",
            "tests/network/test_odd_answers.py",
            f"{_FULL}::test_forwards_outlive_whatever_an_archive_does",
            "tests/pipeline/test_forwards.py::test_what_each_status_leads_to",
            "tests/pipeline/test_forwards.py::test_a_silent_destination_never_delays_another",
            "tests/pipeline/test_forwards.py::test_a_peer_that_is_down_gets_everything_once_it_is_back",
        ),
        wanted=2,
        about_s=90,
    ),
    Case(
        "F7",
        "database held for a minute, failing, damaged, not to be written, its log removed",
        (
            f"{_DATABASE}::test_a_database_held_for_a_minute_costs_repetitions_and_no_process",
            f"{_DATABASE}::test_a_log_that_was_removed_costs_nothing_that_was_acknowledged",
            f"{_DATABASE}::test_a_database_that_cannot_be_written_is_refused_at_start_and_says_so",
            f"{_STATUS}::test_a_locked_database_answers_out_of_resources_and_leaves_no_file",
            f"{_STATUS}::test_a_database_that_fails_answers_out_of_resources_and_leaves_no_file",
            "tests/pipeline/test_pace.py::test_a_database_that_does_not_answer_ends_neither_worker_nor_courier",
            f"{_FULL}::test_a_damaged_database_is_refused_at_start_and_says_so",
        ),
        about_s=180,
    ),
    Case(
        "F8",
        "spool: a bit flipped, a file cut, removed or replaced by a link",
        (
            f"{_QUICK}::test_a_damaged_file_is_named_and_the_others_go_on",
            "tests/storage/test_recovery.py",
            "tests/cli/test_node_commands.py::test_verify_is_silent_on_a_sound_spool_and_names_a_changed_file",
        ),
        wanted=5,
        about_s=25,
    ),
    Case(
        "F9",
        "model: missing, changed, drifting, out of memory; a worker that hangs or segfaults",
        (
            _FALLEN,
            "tests/model/test_checkpoint.py",
            "tests/model/test_execution.py::test_when_memory_runs_out_batches_become_smaller_and_nothing_is_lost",
            "tests/pipeline/test_constancy.py::test_one_moved_weight_is_noticed",
            "tests/pipeline/test_faults.py",
            "tests/flow/test_promotion.py::test_weights_that_were_changed_in_the_store_never_score",
        ),
        about_s=250,
    ),
    Case(
        "F10",
        "clock set by days, back to 1970, on to 2038",
        ("tests/pipeline/test_clock.py", "tests/flow/test_set_clock.py"),
        about_s=90,
    ),
    Case(
        "F11",
        "RST within a dataset x 200, half-open and frozen peers, SIGTERM under 10 associations",
        (
            f"{_HOLES}::test_connections_that_are_reset_inside_a_dataset_leave_nothing",
            f"{_HOLES}::test_half_open_connections_are_closed_in_time_and_hold_nobody_up",
            f"{_HOLES}::test_one_byte_at_a_time_does_not_stretch_the_deadline_of_a_pdu",
            f"{_FULL}::test_sigterm_under_ten_associations_drains_them_within_30_seconds",
            "tests/network/test_drain.py",
        ),
        wanted=3,
        about_s=40,
    ),
    Case(
        "F13",
        "identity: corrected copies, reject notes, another patient",
        ("tests/pipeline/test_identity.py",),
        about_s=25,
    ),
    Case(
        "F14", "senders: pauses, an hour open, two titles, twelve reconstructions", ("tests/pipeline/test_senders.py",)
    ),
    Case(
        "L1",
        "1 x 1,000, 10 x 200, 32 x 100, 64 x 20 associations x instances: p99 below 2 s",
        (f"{_LOADS}::test_many_scanners_at_once_are_answered_in_time",),
        wanted=2,
        about_s=200,
    ),
    Case(
        "L2",
        "3 x 500 MB at once; 10,000 x 10 KB: memory",
        (
            f"{_LOADS}::test_objects_of_500_megabytes_do_not_make_the_receiver_large",
            f"{_FULL}::test_ten_thousand_small_instances_do_not_make_the_receiver_large",
        ),
        about_s=80,
    ),
    Case(
        "B1",
        "every file of pydicom, 5,000 mutated instances, 10,000 mutated PDUs, valid ones between them",
        (
            f"{_QUICK}::test_mutated_instances_and_pdus_harm_no_valid_one",
            f"{_FULL}::test_every_file_of_pydicom_is_answered_from_the_table",
            _STATUS,
        ),
        wanted=4,
        about_s=60,
    ),
    Case(
        "B2",
        "coverage-guided fuzzing: header scan, association and PROXY PDUs, report builder, 30 s each",
        (f"{_QUICK}::test_fuzzed_input_raises_nothing_but_the_declared_errors",),
        wanted=10,
        about_s=140,
    ),
    Case(
        "M1",
        "state machine over series and deliveries: the invariant after every step",
        (f"{_QUICK}::test_any_course_of_events_keeps_the_promise",),
        wanted=20,
        least=1,
        about_s=90,
    ),
    Case(
        "D1",
        "planted: a sync left out, of data, a folder, a new folder",
        (f"{_QUICK}::test_a_spool_that_leaves_out_a_step_is_found_out",),
        wanted=5,
        about_s=20,
    ),
    Case(
        "D2",
        "planted: answering before the instance is kept",
        (
            f"{_GUARDS}::test_a_node_that_answers_before_the_instance_is_kept_is_found_out",
            f"{_QUICK}::test_a_spool_that_leaves_out_a_step_is_found_out[an_early_answer]",
        ),
        about_s=15,
    ),
    Case(
        "D3",
        "planted: a random report UID",
        (
            f"{_GUARDS}::test_a_node_that_names_its_reports_at_random_is_found_out",
            f"{_FULL}::test_the_state_machine_finds_a_broken_node_out[random_report_uids]",
        ),
        about_s=15,
    ),
    Case(
        "D4",
        "planted: the status of the archive ignored",
        (
            f"{_GUARDS}::test_a_node_that_takes_no_for_an_answer_is_found_out",
            f"{_FULL}::test_the_state_machine_finds_a_broken_node_out[status_ignored]",
        ),
        about_s=15,
    ),
    Case(
        "N1",
        "forwarding: archive down, node killed, loops, what was lost",
        (_FORWARD, "tests/pipeline/test_forwards.py"),
        about_s=420,
    ),
    Case(
        "N2",
        "TLS, in and out",
        ("tests/network/test_tls.py", "tests/network/test_tls_rules.py", "tests/network/test_tls_out.py"),
        about_s=20,
    ),
    Case(
        "N3",
        "storage commitment: for reports, for scanners, whole node",
        (
            "tests/pipeline/test_commitment.py",
            "tests/pipeline/test_commitment_proxy.py",
            "tests/flow/test_confirmed.py",
        ),
        about_s=90,
    ),
    Case(
        "N4",
        "DICOMweb, pull and query",
        (
            "tests/network/test_dicomweb.py",
            "tests/flow/test_dicomweb_archive.py",
            "tests/pipeline/test_pull.py",
            "tests/pipeline/test_query.py",
        ),
        about_s=120,
    ),
)
"""In the order of the matrix. N: the services of a hospital's network. F12 (two hosts) is not built."""


def find(names: list[str]) -> list[Case]:
    """Return the cases with these names.

    Raises:
        KeyError: there is no such case.
    """
    known = {case.id: case for case in CASES}
    return [known[name.upper()] for name in names]
