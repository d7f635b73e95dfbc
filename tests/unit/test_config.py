"""A configuration is read whole or refused by name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from slotwise.config import Config, ConfigError, printed, read


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
