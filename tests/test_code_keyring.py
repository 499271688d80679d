"""Keys of code: kept, given on, changed, and never shown."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import stat

import pytest

from numpush.code import CodeError, Keyring, UnsignedCode


def test_a_keyring_is_saved_for_its_user_alone_and_read_again(tmp_path):
    ring, path = Keyring.generate() | Keyring.generate(), tmp_path / "keys"
    ring.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(Keyring.from_file(path)) == list(ring)
    assert Keyring.from_file(path).sign(b"text") == ring.sign(b"text")


def test_saving_never_replaces_a_key(tmp_path):
    Keyring.generate().save(tmp_path / "keys")
    before = (tmp_path / "keys").read_text()
    with pytest.raises(FileExistsError):
        Keyring.generate().save(tmp_path / "keys")
    assert (tmp_path / "keys").read_text() == before


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o602, 0o644])
def test_a_file_that_others_may_read_or_write_is_refused(tmp_path, mode):
    Keyring.generate().save(tmp_path / "keys")
    os.chmod(tmp_path / "keys", mode)
    with pytest.raises(CodeError, match=rf"{mode:04o} found: chmod 600"):
        Keyring.from_file(tmp_path / "keys")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path):
    Keyring.generate().save(tmp_path / "keys")
    os.chown(tmp_path / "keys", 12345, -1)
    with pytest.raises(CodeError, match="of user 12345"):
        Keyring.from_file(tmp_path / "keys")


def test_the_environment_may_have_the_keys(monkeypatch):
    ring = Keyring.generate() | Keyring.generate()
    monkeypatch.setenv("THE_KEYS", ring.export())
    assert list(Keyring.from_env("THE_KEYS")) == list(ring)


def test_an_environment_without_keys_is_named(monkeypatch):
    monkeypatch.delenv("NUMPUSH_CODE_KEY", raising=False)
    with pytest.raises(UnsignedCode, match="NUMPUSH_CODE_KEY"):
        Keyring.from_env()


@pytest.mark.parametrize("text", ["secretsecret", "00" * 31, "zz" * 32, "a key of words"])
def test_what_is_no_key_is_refused_without_being_shown(monkeypatch, tmp_path, text):
    monkeypatch.setenv("THE_KEYS", text)
    with pytest.raises(CodeError, match="64 or more hex digits") as caught:
        Keyring.from_env("THE_KEYS")
    assert text not in str(caught.value)
    (tmp_path / "keys").touch(0o600)
    (tmp_path / "keys").write_text(text)
    with pytest.raises(CodeError, match="64 or more hex digits"):
        Keyring.from_file(tmp_path / "keys")


def test_a_file_without_a_key_is_refused(tmp_path):
    (tmp_path / "keys").touch(0o600)
    (tmp_path / "keys").write_text("# nothing\n")
    with pytest.raises(CodeError, match="no key in it"):
        Keyring.from_file(tmp_path / "keys")


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="32 random bytes"):
        Keyring([b"short"])


def test_no_key_is_in_what_is_shown():
    ring = Keyring.generate()
    assert ring.export() not in repr(ring) + str(ring) + f"{[ring]}" + str(list(ring))
    assert next(iter(ring)) in repr(ring)


def test_the_first_key_signs_and_all_let_in():
    old, new = Keyring.generate(), Keyring.generate()
    both = new | old
    assert both.sign(b"x") == new.sign(b"x") != old.sign(b"x")
    both.check(old.signer, old.sign(b"x"), b"x")
    both.check(new.signer, new.sign(b"x"), b"x")
    with pytest.raises(UnsignedCode):
        old.check(new.signer, new.sign(b"x"), b"x")


def test_a_keyring_is_not_pickled_by_chance():
    with pytest.raises(TypeError, match="from_file or Keyring"):
        pickle.dumps(Keyring.generate())


def _sign(ring, results):
    results.put(ring.sign(b"text"))


def test_a_process_that_is_started_gets_its_keyring(ctx: multiprocessing.context.BaseContext):
    ring, results = Keyring.generate(), ctx.SimpleQueue()
    child = ctx.Process(target=_sign, args=(ring, results))
    child.start()
    assert results.get() == ring.sign(b"text")
    child.join()
    results.close()
