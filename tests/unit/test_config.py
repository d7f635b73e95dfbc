"""A configuration is read whole or refused by name."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from slotwise.config import Config, ConfigError, printed, read, serves_grpc


def write(folder: Path, text: str) -> Path:
    path = folder / "slotwise.toml"
    path.write_text(text)
    return path


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, 'policy = "fifo"\nhttp_port = 9000\n')
    config = read(path, {"http_port": 7000, "host": None})
    assert (config.policy, config.http_port, config.host) == ("fifo", 7000, Config().host)


def test_an_unknown_key_is_named_with_its_file(tmp_path: Path) -> None:
    path = write(tmp_path, "htp_port = 9000\n")
    with pytest.raises(ConfigError, match=r"slotwise\.toml.*htp_port"):
        read(path, {})


def test_a_value_of_the_wrong_kind_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, 'http_port = "many"\n')
    with pytest.raises(ConfigError, match="http_port"):
        read(path, {})


def test_a_file_that_is_not_there_or_is_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "absent.toml", {})
    with pytest.raises(ConfigError, match=r"slotwise\.toml"):
        read(write(tmp_path, "= nothing"), {})


def test_what_is_printed_reads_back_as_the_same() -> None:
    config = read(None, {"policy": "clockwork", "cores": (0, 1), "policy_settings": {"max_batch": 4}})
    assert msgspec.json.decode(printed(config), type=Config) == config


TABLES = {"tls", "defaults", "door", "controller", "fleet", "models"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[door]\nrequest_max = 3", r"`door\.request_max`: .*did you mean `requests_max`"),
        ("[door]\nrows_max = 'a'", r"`door\.rows_max`: Expected `int`, got `str`"),
        ("[door]\nrows_max = 0", r"`door`: `rows_max` is 0; it must be a number above 0"),
        ("[door]\ngzip_level = 10", r"`gzip_level` is 10; it must be 0"),
        ("[door]\nkeep_alive_s = nan", "`keep_alive_s` is nan"),
        ("[fleet]\nrestart_s_max = inf", "`restart_s_max` is inf"),
        ("[fleet]\nring_bytes = 5001", "`ring_bytes` is 5001; it must be a multiple of 8"),
        ("[fleet]\nnice = 20", "`nice` is 20; it must be 0 to 19"),
        ("[controller]\nattempts_max = -1", "`attempts_max` is -1"),
        ("[models]\nname_pattern = '('", r"`name_pattern` is '\(', no regular expression"),
        ("[defaults]\npriority = 12", r"`defaults\.priority`: Expected `int` <= 9"),
        ("[defaults]\nversions = 'some'", r"`defaults\.versions`"),
        ("[tls]\ncertificate = 'c.pem'", "`certificate` needs a `key`"),
        ("door = 3", "`door`: Expected `object`, got `int`"),
        ("xyzzy = 3", "`xyzzy`: there is no such key; there are repository, host,"),
    ],
)
def test_a_fault_in_a_table_is_told_in_one_line_with_its_key_and_what_is_right(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        read(write(tmp_path, text), {})
    assert str(raised.value).startswith(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_fault_in_an_option_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^options: `memory_mib`"):
        read(write(tmp_path, "http_port = 9000"), {"memory_mib": -1})


def test_options_go_over_a_table_key_by_key(tmp_path: Path) -> None:
    path = write(tmp_path, "[defaults]\nslo_ms = 50\nbatch_max = 4\n")
    config = read(path, {"defaults": {"batch_max": 2}})
    assert (config.defaults.slo_ms, config.defaults.batch_max) == (50, 2)


def test_a_table_that_says_nothing_has_the_defaults_of_the_part_itself(tmp_path: Path) -> None:
    config = read(write(tmp_path, "".join(f"[{table}]\n" for table in TABLES)), {})
    assert config == Config()
    for table in TABLES:
        assert getattr(config, table) == type(getattr(config, table))()


def test_the_example_is_read_as_it_says() -> None:
    config = read(Path(__file__).parents[2] / "examples" / "server.toml", {})
    assert (config.cores, config.defaults.slo_ms, config.door.requests_max) == ((0,), 200.0, 500)


def test_grpc_is_served_where_its_libraries_are_unless_it_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert serves_grpc(Config())
    assert not serves_grpc(Config(grpc=False))
    monkeypatch.setitem(sys.modules, "grpc_health", None)
    assert not serves_grpc(Config())
    with pytest.raises(ConfigError, match=r"pip install 'slotwise\[grpc\]'"):
        serves_grpc(Config(grpc=True))
