"""Times, zones and windows, as an operator writes and reads them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from time import perf_counter

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mailer_cli.times import (
    BadTime,
    Window,
    find_zone,
    json_time,
    parse_duration,
    parse_time,
    parse_window,
    show_time,
    zone_of,
)

NOW = datetime(2026, 6, 1, 22, 30, 15, 250_000, tzinfo=UTC)  # already 2 June in Moscow
MINUTE = timedelta(minutes=1)
LONG = pytest.param("x" * 100_000, id="long")
MANY_DIGITS = pytest.param("9" * 5000 + "s", id="5000 digits")  # more than int() takes

# a zone, and the instant at which its clock was or will be changed
CHANGES = [
    ("Europe/Berlin", datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1, 0, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 11, 4, 3, 0, tzinfo=UTC)),  # at midnight: 00:00 does not exist
    ("America/Sao_Paulo", datetime(2019, 2, 17, 2, 0, tzinfo=UTC)),  # at midnight: 23:xx comes twice
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, 0, tzinfo=UTC)),  # by half an hour
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, 10, 0, tzinfo=UTC)),  # a whole day left out
    ("Asia/Pyongyang", datetime(2018, 5, 4, 15, 0, tzinfo=UTC)),  # for good, by half an hour
    ("Asia/Kolkata", datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),  # from here on: no change at all
    ("+03:00", datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
    ("-09:30", datetime(2026, 10, 25, 1, 0, tzinfo=UTC)),
    ("UTC", datetime(2026, 10, 25, 1, 0, tzinfo=UTC)),
]
MINUTES = st.integers(0, 1439)
WINDOWS = st.builds(Window, MINUTES, MINUTES).filter(lambda window: window.from_minute != window.to_minute)
NEAR_CHANGES = st.tuples(
    st.sampled_from(CHANGES), st.timedeltas(-timedelta(days=2), timedelta(days=2)), st.booleans()
).map(lambda drawn: (drawn[0][0], drawn[0][1] + (drawn[1] // MINUTE * MINUTE if drawn[2] else drawn[1])))
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2037, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
ZONES = st.sampled_from(sorted({zone for zone, _ in CHANGES}))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def complaint(parse: Callable[[], object]) -> BadTime:
    with pytest.raises(BadTime) as caught:
        parse()
    assert "\n" not in str(caught.value)
    return caught.value


def refusal(value: str, zone: str = "Europe/Moscow") -> BadTime:
    return complaint(lambda: parse_time(value, zone, NOW))


# ---------------------------------------------------------------- zones


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Europe/Moscow", "Europe/Moscow"),
        (" europe/MOSCOW ", "Europe/Moscow"),
        ("america/port-au-prince", "America/Port-au-Prince"),
        ("EST5EDT", "EST5EDT"),
        ("+03:00", "+03:00"),
        ("-09:30", "-09:30"),
        ("+3", "+03:00"),
        ("+03", "+03:00"),
        ("+3:30", "+03:30"),
        ("-0930", "-09:30"),
        ("+14:00", "+14:00"),
        ("-00:00", "+00:00"),
        ("Z", "UTC"),
        ("utc", "UTC"),
    ],
)
def test_a_zone_has_one_spelling_whatever_was_written(written: str, name: str) -> None:
    zone = find_zone(written)
    assert (zone.name, zone.warning) == (name, None)
    assert find_zone(zone.name) == zone
    assert zone.tz is zone_of(name)


@pytest.mark.parametrize(
    "written",
    ["", " ", "3", "+330", "+14:01", "-15", "+03:60", "+3:5", "+٣", "MSK", "UTC+3", "Moscow", "Europe",
     "Europe/", "../../etc/passwd", "/usr/share/zoneinfo/Europe/Moscow", "Europe/../Europe/Moscow",
     "localtime", "posixrules", "right/Europe/Moscow", "posix/Europe/Moscow", "Factory",
     "Europe/Mos\0cow", "Москва", LONG],
)  # fmt: skip
def test_an_unknown_zone_is_refused_by_its_name(written: str) -> None:
    error = complaint(lambda: find_zone(written))
    assert repr(written.strip())[1:-1][:50] in str(error)
    assert len(str(error)) < 120


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("Europe/Moskow", "Europe/Moscow"),
        ("moscow", "Europe/Moscow"),
        ("Moskow", "Europe/Moscow"),
        ("New York", "America/New_York"),
        ("UTC+3", "+03:00"),
        ("GMT+3", "+03:00"),
        ("79161234567", "+03:00"),
    ],
)
def test_an_unknown_zone_brings_what_may_have_been_meant(written: str, hint: str) -> None:
    assert hint in (complaint(lambda: find_zone(written)).hint or "")


@pytest.mark.parametrize(
    ("name", "means", "other"),
    [("Etc/GMT+3", "-03:00, west", "+03:00 if you meant east"), ("etc/gmt-14", "+14:00, east", "-14:00")],
)
def test_a_zone_with_an_inverted_sign_is_taken_with_a_warning(name: str, means: str, other: str) -> None:
    warning = find_zone(name).warning or ""
    assert means in warning
    assert other in warning


def test_a_warning_about_the_sign_agrees_with_the_zone() -> None:
    for hours in (*range(-14, 0), *range(1, 13)):
        zone = find_zone(f"Etc/GMT{hours:+}")
        assert zone.warning is not None
        assert f" is {show_time(NOW, zone.name)[-6:]}, " in zone.warning
    assert find_zone("Etc/GMT+0").warning is None
    assert find_zone("Etc/GMT").warning is None


def test_a_stored_zone_that_this_machine_does_not_know_is_named() -> None:
    for name in ("Europe/Atlantis", "Europe", "../etc"):
        assert name in str(complaint(partial(zone_of, name)))


# ---------------------------------------------------------------- entering times


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("now", NOW),
        (" NOW ", NOW),
        ("+90m", NOW + timedelta(minutes=90)),
        ("+2h", NOW + timedelta(hours=2)),
        ("+30s", NOW + timedelta(seconds=30)),
        ("+1d", NOW + timedelta(days=1)),
        ("+1h30m", NOW + timedelta(minutes=90)),
        ("today 18:00", utc("2026-06-02T18:00+03:00")),
        ("Tomorrow 09:00", utc("2026-06-03T09:00+03:00")),
        ("tomorrow 9:00:30", utc("2026-06-03T09:00:30+03:00")),
        ("today 18:00 Z", utc("2026-06-01T18:00+00:00")),  # where it is 18:00 Z, it is still the 1st
        ("2026-12-31T18:00", utc("2026-12-31T18:00+03:00")),
        ("2026-12-31 18:00", utc("2026-12-31T18:00+03:00")),
        ("2026-12-31T18:00:05.25", utc("2026-12-31T18:00:05.250+03:00")),
        ("2026-12-31T18:00:05.000001", utc("2026-12-31T18:00:05.000001+03:00")),
        ("2026-12-31T18:00+05:30", utc("2026-12-31T12:30+00:00")),
        ("2026-12-31 18:00 -0930", utc("2027-01-01T03:30+00:00")),
        ("2026-12-31t18:00z", utc("2026-12-31T18:00+00:00")),
        ("2026-12-31T15:00:00.000Z", utc("2026-12-31T18:00+03:00")),
        ("2028-02-29T00:00", utc("2028-02-28T21:00+00:00")),
    ],
)
def test_a_time_is_written_in_many_ways(written: str, moment: datetime) -> None:
    found = parse_time(written, "Europe/Moscow", NOW)
    assert found == moment
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "written",
    ["", "12", "12:00", "01/02", "31.12", "31.12.2026", "31.12.2026 18:00", "2026-12-31T", "2026-12-31T18",
     "2026-12-31T24:00", "2026-12-31T18:60", "2026-12-31T18:00:60", "2026-02-29T18:00", "2026-13-01T18:00",
     "2026-12-31T18:00+15:00", "2026-12-31T18:00+3:5", "2026-W01-1T18:00", "20261231T180000", "1798729200",
     "+", "+m", "+90", "+90x", "+1m1h", "-90m", "+-1m", "+1.5h", "++1h", "tomorrow", "yesterday 09:00",
     "next friday 09:00", "noon", "2026-12-31T١٨:00", "2026-12-31T18:00\n2026-12-31T18:00", LONG],
)  # fmt: skip
def test_what_could_be_read_otherwise_is_no_time(written: str) -> None:
    assert refusal(written).hint
    assert len(str(refusal(written))) < 160


@pytest.mark.parametrize("written", ["2026-12-31", "today", "Tomorrow"])
def test_a_day_without_its_time_is_refused_with_the_way_to_write_it(written: str) -> None:
    error = refusal(written)
    assert repr(written) in str(error)
    assert f"{written} 18:00" in (error.hint or "")
    assert parse_time(f"{written} 18:00", "Europe/Moscow", NOW)


@pytest.mark.parametrize(
    "written",
    ["9999-12-31T23:59", "9999-12-31T23:59-14:00", "9999-01-01T00:00Z", "0001-01-01T00:00+14:00",
     "0000-01-01T00:00", "0001-01-01T00:00", "1969-12-31T23:59Z", "+999999999d", "+36526d",
     "+9999999999999999999999d", "+999999999d999999999h"],
)  # fmt: skip
def test_a_time_far_off_is_refused_and_does_not_overflow(written: str) -> None:
    refusal(written)


def test_tomorrow_on_the_last_day_of_all_is_refused_too() -> None:
    last = datetime.max.replace(tzinfo=UTC)
    for written in ("now", "+1s", "tomorrow 09:00", "today 09:00"):
        for zone in ("+14:00", "-14:00", "Europe/Moscow"):
            complaint(partial(parse_time, written, zone, last))


@pytest.mark.parametrize(
    ("written", "zone", "fate", "readings"),
    [
        ("2026-03-29T02:30", "Europe/Berlin", "02:30 on 2026-03-29 does not exist in Europe/Berlin",
         ["2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"]),
        ("2026-10-25 02:30", "Europe/Berlin", "02:30 on 2026-10-25 comes twice in Europe/Berlin",
         ["2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"]),
        ("2018-11-04T00:00", "America/Sao_Paulo", "00:00 on 2018-11-04 does not exist",
         ["2018-11-03T23:00-03:00", "2018-11-04T01:00-02:00"]),
        ("2019-02-16T23:59:30", "America/Sao_Paulo", "23:59:30 on 2019-02-16 comes twice",
         ["2019-02-16T23:59:30-02:00", "2019-02-16T23:59:30-03:00"]),
        ("2026-10-04T02:15", "Australia/Lord_Howe", "02:15 on 2026-10-04 does not exist",
         ["2026-10-04T01:45+10:30", "2026-10-04T02:45+11:00"]),
        ("2026-04-05T01:45", "Australia/Lord_Howe", "01:45 on 2026-04-05 comes twice",
         ["2026-04-05T01:45+11:00", "2026-04-05T01:45+10:30"]),
        ("2011-12-30T12:00", "Pacific/Apia", "12:00 on 2011-12-30 does not exist",
         ["2011-12-29T12:00-10:00", "2011-12-31T12:00+14:00"]),
    ],
)  # fmt: skip
def test_a_local_time_of_no_or_two_moments_is_refused_with_both(
    written: str, zone: str, fate: str, readings: list[str]
) -> None:
    message = str(refusal(written, zone))
    assert message.startswith(fate)
    assert message.endswith(f": write {readings[0]} or {readings[1]}")
    first, second = (parse_time(reading, zone, NOW) for reading in readings)
    assert first < second


def test_tomorrow_may_fall_into_a_gap_too() -> None:
    now = utc("2026-03-28T12:00+01:00")
    error = complaint(lambda: parse_time("tomorrow 02:30", "Europe/Berlin", now))
    assert "does not exist" in str(error)


@pytest.mark.parametrize(
    "written", ["2026-03-29T01:59", "2026-03-29T03:00", "2026-10-25T01:59", "2026-10-25T03:00"]
)
def test_beside_a_gap_or_a_fold_a_local_time_is_plain(written: str) -> None:
    moment = parse_time(written, "Europe/Berlin", NOW)
    assert show_time(moment, "Europe/Berlin").startswith(written.replace("T", " "))


@given(MOMENTS, ZONES)
def test_a_local_time_is_taken_only_if_one_moment_shows_it(moment: datetime, zone: str) -> None:
    local = moment.astimezone(zone_of(zone)).replace(tzinfo=None)
    assert parse_time(local.isoformat(), zone, NOW) == moment


@given(NEAR_CHANGES)
def test_near_a_change_a_local_time_means_its_moment_or_names_it(
    drawn: tuple[str, datetime],
) -> None:
    zone, moment = drawn
    local = moment.astimezone(zone_of(zone))
    try:
        found = parse_time(local.replace(tzinfo=None).isoformat(), zone, NOW)
    except BadTime as error:
        readings = str(error).partition(": write ")[2].split(" or ")
        assert moment in [parse_time(reading, zone, NOW) for reading in readings]
    else:
        assert found == moment


@given(st.text(max_size=30) | st.from_regex(r"[+]?[0-9dhmsTZ: .+-]{1,30}", fullmatch=True))
@example("9999-12-31T23:59:59.999999-14:00")
def test_whatever_is_written_gives_a_value_or_bad_time(text: str) -> None:
    parsers = (find_zone, parse_window, parse_duration, partial(parse_time, zone="Europe/Berlin", now=NOW))
    for parse in parsers:
        try:
            parse(text)
        except BadTime as error:
            assert len(str(error).splitlines()) == 1


# ---------------------------------------------------------------- showing times


def test_people_see_local_time_and_its_offset() -> None:
    assert show_time(utc("2026-12-31T15:00+00:00"), "Europe/Moscow") == "2026-12-31 18:00 +03:00"
    assert show_time(utc("2026-12-31T15:00:07.9+00:00"), "-09:30") == "2026-12-31 05:30:07 -09:30"
    assert show_time(utc("2026-12-31T15:00:00.9+00:00"), "UTC") == "2026-12-31 15:00 +00:00"


def test_programs_see_utc_with_milliseconds() -> None:
    assert json_time(utc("2026-12-31T18:00+03:00")) == "2026-12-31T15:00:00.000Z"
    moment = datetime(2026, 12, 31, 18, 0, 59, 999_999, tzinfo=timezone(timedelta(hours=3)))
    assert json_time(moment) == "2026-12-31T15:00:59.999Z"


@given(MOMENTS | NEAR_CHANGES.map(lambda drawn: drawn[1]), ZONES)
def test_a_shown_time_can_be_entered_again(moment: datetime, zone: str) -> None:
    assert parse_time(show_time(moment, zone), "Asia/Tokyo", NOW) == moment.replace(microsecond=0)
    milliseconds = moment.microsecond // 1000 * 1000
    assert parse_time(json_time(moment), "Asia/Tokyo", NOW) == moment.replace(microsecond=milliseconds)


# ---------------------------------------------------------------- durations


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("45s", 45),
        ("3m", 180),
        (" 1h30m ", 5400),
        ("90d", 7_776_000),
        ("1d1h1m1s", 90_061),
        ("90m", 5400),
        ("0s", 0),
    ],
)
def test_a_duration_is_numbers_with_units(written: str, seconds: int) -> None:
    assert parse_duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize("written", ["", "5", "m", "-5m", "+5m", "5 m", "1m1h", "1.5h", "5w", "5m5m", "٥m"])
def test_anything_else_is_no_duration(written: str) -> None:
    error = complaint(lambda: parse_duration(written))
    assert "1h30m" in (error.hint or "")


@pytest.mark.parametrize(
    "written",
    ["36526d", "999999999d999999999h", "9" * 30 + "s", MANY_DIGITS],
)
def test_a_duration_of_more_than_a_century_is_refused(written: str) -> None:
    assert "century" in str(complaint(lambda: parse_duration(written)))


# ---------------------------------------------------------------- windows


@pytest.mark.parametrize(
    ("written", "window", "name"),
    [
        ("09:00-21:00", Window(540, 1260), "09:00-21:00"),
        ("9:00-21:00", Window(540, 1260), "09:00-21:00"),
        (" 09:00 – 21:00 ", Window(540, 1260), "09:00-21:00"),
        ("21:30-08:15", Window(1290, 495), "21:30-08:15"),
        ("09:00-24:00", Window(540, 0), "09:00-00:00"),
        ("00:00-23:59", Window(0, 1439), "00:00-23:59"),
    ],
)
def test_a_window_is_two_times_of_day(written: str, window: Window, name: str) -> None:
    assert parse_window(written) == window
    assert str(window) == f"{window.start}-{window.end}" == name
    assert parse_window(name) == window


@pytest.mark.parametrize(
    "written",
    ["", "09:00", "09:00-", "9-21", "09:00-21:00:00", "09:00-24:01", "24:00-09:00", "25:00-26:00",
     "09:60-21:00", "-09:00-21:00", "09:00..21:00", "09:00-21:00 Europe/Moscow", "٠٩:00-21:00"],
)  # fmt: skip
def test_anything_else_is_no_window(written: str) -> None:
    assert "09:00-21:00" in (complaint(lambda: parse_window(written)).hint or "")


@pytest.mark.parametrize("written", ["09:00-09:00", "00:00-24:00", "00:00-00:00"])
def test_a_window_that_begins_where_it_ends_is_refused(written: str) -> None:
    assert "leave it out" in (complaint(lambda: parse_window(written)).hint or "")


@pytest.mark.parametrize(
    ("window", "clock", "is_open"),
    [
        ("09:00-21:00", "08:59:59.999999", False),
        ("09:00-21:00", "09:00", True),
        ("09:00-21:00", "20:59:59.999999", True),
        ("09:00-21:00", "21:00", False),
        ("21:00-09:00", "20:59:59", False),
        ("21:00-09:00", "21:00", True),
        ("21:00-09:00", "00:00", True),
        ("21:00-09:00", "08:59:59", True),
        ("21:00-09:00", "09:00", False),
        ("09:00-24:00", "23:59:59", True),
        ("09:00-24:00", "00:00", False),
    ],
)
@pytest.mark.parametrize("zone", ["Asia/Kolkata", "-09:30", "Europe/Berlin"])
def test_a_window_holds_its_start_and_not_its_end(window: str, clock: str, is_open: bool, zone: str) -> None:
    moment = parse_time(f"2026-06-01T{clock}", zone, NOW)
    assert parse_window(window).is_open(zone, moment) is is_open


@pytest.mark.parametrize(
    ("window", "zone", "moment", "closes"),
    [
        ("09:00-21:00", "Asia/Kolkata", "2026-06-01T12:00:30+05:30", "2026-06-01T21:00+05:30"),
        ("21:00-09:00", "+03:00", "2026-06-01T23:00+03:00", "2026-06-02T09:00+03:00"),
        ("21:00-09:00", "Europe/Berlin", "2026-03-28T22:00+01:00", "2026-03-29T09:00+02:00"),
        ("21:00-09:00", "Europe/Berlin", "2026-10-24T22:00+02:00", "2026-10-25T09:00+01:00"),
        # 02:30 does not exist: closed from 03:00 on; it comes twice: closed at both
        ("21:00-02:30", "Europe/Berlin", "2026-03-28T22:00+01:00", "2026-03-29T03:00+02:00"),
        ("21:00-02:30", "Europe/Berlin", "2026-10-24T22:00+02:00", "2026-10-25T02:30+02:00"),
        ("21:00-02:30", "Europe/Berlin", "2026-10-25T02:10+01:00", "2026-10-25T02:30+01:00"),
        # midnight is jumped over; 23:00 to midnight is lived through twice
        ("09:00-24:00", "America/Sao_Paulo", "2018-11-03T20:00-03:00", "2018-11-04T01:00-02:00"),
        ("09:00-24:00", "America/Sao_Paulo", "2019-02-16T20:00-02:00", "2019-02-17T00:00-03:00"),
        ("22:00-02:15", "Australia/Lord_Howe", "2026-10-03T23:00+10:30", "2026-10-04T02:30+11:00"),
    ],
)
def test_a_window_closes_by_the_local_clock(window: str, zone: str, moment: str, closes: str) -> None:
    assert parse_window(window).closes_at(zone, utc(moment)) == utc(closes)


@pytest.mark.parametrize(
    ("window", "zone", "moment", "opens"),
    [
        ("09:00-21:00", "Asia/Kolkata", "2026-06-01T22:00:30+05:30", "2026-06-02T09:00+05:30"),
        ("09:00-21:00", "Asia/Kolkata", "2026-06-01T12:00:30+05:30", "2026-06-01T12:00:30+05:30"),
        ("09:00-21:00", "Europe/Berlin", "2026-03-28T22:00+01:00", "2026-03-29T09:00+02:00"),
        ("02:15-09:00", "Europe/Berlin", "2026-03-28T22:00+01:00", "2026-03-29T03:00+02:00"),
        ("02:00-02:30", "Europe/Berlin", "2026-03-28T22:00+01:00", "2026-03-30T02:00+02:00"),  # not that day
        ("02:00-02:30", "Europe/Berlin", "2026-10-25T02:40+02:00", "2026-10-25T02:00+01:00"),  # a second time
        ("00:00-00:30", "America/Sao_Paulo", "2018-11-03T20:00-03:00", "2018-11-05T00:00-02:00"),
        ("09:00-21:00", "Pacific/Apia", "2011-12-29T21:30-10:00", "2011-12-31T09:00+14:00"),
    ],
)
def test_a_window_opens_by_the_local_clock(window: str, zone: str, moment: str, opens: str) -> None:
    assert parse_window(window).opens_at(zone, utc(moment)) == utc(opens)


def scan(window: Window, zone: str, moment: datetime, is_open: bool) -> datetime:
    if window.is_open(zone, moment) is is_open:
        return moment
    moment = moment.replace(second=0, microsecond=0)
    while window.is_open(zone, moment) is not is_open:
        moment += MINUTE
    return moment


@settings(max_examples=300, deadline=None)
@given(WINDOWS, NEAR_CHANGES)
@example(Window(120, 121), ("Europe/Berlin", datetime(2026, 3, 28, 22, 0, 1, tzinfo=UTC)))
@example(Window(121, 120), ("Europe/Berlin", datetime(2026, 10, 24, 22, 0, 1, tzinfo=UTC)))
def test_opening_and_closing_are_what_a_minute_by_minute_look_finds(
    window: Window, drawn: tuple[str, datetime]
) -> None:
    zone, moment = drawn
    opens = window.opens_at(zone, moment)
    assert opens == scan(window, zone, moment, True)
    closes = window.closes_at(zone, opens)
    assert closes == scan(window, zone, opens, False)
    assert closes.tzinfo is UTC


@given(WINDOWS, MOMENTS, ZONES)
def test_a_window_is_open_until_it_closes_and_no_longer(window: Window, moment: datetime, zone: str) -> None:
    assume(window.is_open(zone, moment))
    closes = window.closes_at(zone, moment)
    assert moment < closes
    assert window.is_open(zone, closes - timedelta(microseconds=1))
    assert not window.is_open(zone, closes)


def test_the_usual_questions_take_microseconds() -> None:
    window, morning = Window(540, 1260), utc("2026-06-01T09:00+02:00")
    moments = [morning + minutes * MINUTE for minutes in range(300)]
    for ask in (window.is_open, window.opens_at, window.closes_at):
        started = perf_counter()
        for moment in moments:
            ask("Europe/Berlin", moment)
        assert (perf_counter() - started) / len(moments) < 100e-6  # a search of minutes takes 500
