//! The local adapter against the suite, its file rules and its published bytes.

use std::{
    future::Future,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    pin::pin,
    task::{Context, Poll, Waker},
};

use tempfile::TempDir;

use super::*;
use crate::{
    conformance::{self, Subject},
    port::HeapKey,
};

/// Local keys never wait, so polling is all the runtime they need.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
}

fn keys() -> LocalKeys {
    LocalKeys::new(|key| Some(HeapKey::keep(key)))
}

fn written(dir: &TempDir, name: &str, content: &str, mode: u32) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn refusal(path: &Path) -> LocalKeyError {
    keys().add_key_file("local", path).unwrap_err()
}

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn a_key_file_that_is_taken_away_changed_or_opened_disables_its_key() {
    let dir = TempDir::new().unwrap();
    let path = written(&dir, "kek", HEX, 0o600);
    let mut service = keys();
    service.add_key_file("local", &path).unwrap();
    let context = KeyContext {
        org: None,
        odk: "odk".to_owned(),
        purpose: "postern-odk",
    };
    let wrapped = now(service.wrap("local", &context, &[7; 32])).unwrap();
    let works = || now(service.unwrap("local", &context, &wrapped)).map(drop);
    assert_eq!(works(), Ok(()));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(works(), Err(KeyError::Disabled));
    written(&dir, "kek", &HEX.replace("1f", "2f"), 0o600);
    assert_eq!(works(), Err(KeyError::Disabled));
    written(&dir, "kek", HEX, 0o644);
    assert_eq!(works(), Err(KeyError::Disabled));
    let status = now(service.status()).unwrap();
    assert!(status.iter().all(|key| key.state == KeyState::Disabled));
    written(&dir, "kek", HEX, 0o600);
    assert_eq!(works(), Ok(()));
}

#[test]
fn key_files_keep_every_promise_of_the_port() {
    let dir = TempDir::new().unwrap();
    let mut service = keys();
    for name in ["one", "two"] {
        create_key_file(&dir.path().join(name)).unwrap();
        service.add_key_file(name, &dir.path().join(name)).unwrap();
    }
    now(conformance::run(Subject {
        service: &service,
        key_ref: "one",
        foreign: &service,
        foreign_key_ref: "two",
    }));
}

#[test]
fn passphrases_keep_every_promise_of_the_port() {
    let dir = TempDir::new().unwrap();
    let passphrase = SecretString::from("correct horse battery staple");
    let mut service = keys();
    // One passphrase, two salts: two keys.
    for name in ["one", "two"] {
        create_passphrase_file(&passphrase, &dir.path().join(name)).unwrap();
        service
            .add_passphrase(name, &passphrase, &dir.path().join(name))
            .unwrap();
    }
    now(conformance::run(Subject {
        service: &service,
        key_ref: "one",
        foreign: &service,
        foreign_key_ref: "two",
    }));
}

#[test]
fn a_created_key_file_is_private_and_never_overwritten() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("kek");
    create_key_file(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(create_key_file(&path), Err(LocalKeyError::Io(_))));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn what_a_killed_process_left_beside_a_key_file_is_removed_and_nothing_else_is() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("kek");
    create_key_file(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    let drafts = [
        "kek.0123456789abcdef.unfinished",
        "kek.ffffffffffffffff.unfinished",
    ];
    let others = [
        "kek.unfinished",
        "kek.0123.unfinished",
        "kek.0123456789abcdex.unfinished",
        "kek.0123456789abcdef.unfinished.old",
        "kek2.0123456789abcdef.unfinished",
        "xkek.0123456789abcdef.unfinished",
    ];
    for name in drafts.iter().chain(&others) {
        std::fs::hard_link(&path, dir.path().join(name)).unwrap();
    }
    settle_key_file(&path).unwrap();
    for name in drafts {
        assert!(!dir.path().join(name).exists(), "{name}");
    }
    for name in others {
        assert!(dir.path().join(name).exists(), "{name}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn hex_and_base64_name_the_same_key() {
    let dir = TempDir::new().unwrap();
    let mut service = keys();
    service
        .add_key_file("hex", &written(&dir, "hex", HEX, 0o600))
        .unwrap();
    service
        .add_key_file("base64", &written(&dir, "base64", &format!("{BASE64}\n"), 0o400))
        .unwrap();
    assert_eq!(service.key("hex").unwrap(), service.key("base64").unwrap());
    assert_eq!(service.key("hex").unwrap()[31], 0x1f);
}

#[test]
fn a_key_file_others_can_touch_is_refused() {
    let dir = TempDir::new().unwrap();
    for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o777] {
        let path = written(&dir, "kek", HEX, mode);
        assert!(
            matches!(refusal(&path), LocalKeyError::OpenToOthers { mode: found } if found == mode),
            "{mode:o}"
        );
    }
}

#[test]
fn only_a_regular_file_is_read() {
    let dir = TempDir::new().unwrap();
    let link = dir.path().join("link");
    symlink(written(&dir, "kek", HEX, 0o600), &link).unwrap();
    assert!(matches!(refusal(&link), LocalKeyError::NotRegular));
    assert!(matches!(refusal(dir.path()), LocalKeyError::NotRegular));
    assert!(matches!(
        refusal(Path::new("/dev/null")),
        LocalKeyError::NotRegular
    ));
    assert!(matches!(
        refusal(&dir.path().join("missing")),
        LocalKeyError::Io(_)
    ));
}

#[test]
fn a_key_file_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        // Only root can give a file away; `/etc/passwd` is another user's for everybody else.
        assert!(!matches!(
            refusal(Path::new("/etc/passwd")),
            LocalKeyError::Malformed
        ));
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = written(&dir, "kek", HEX, 0o600);
    std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
    assert!(matches!(refusal(&path), LocalKeyError::ForeignOwner));
}

#[test]
fn anything_but_one_key_is_malformed() {
    let dir = TempDir::new().unwrap();
    let zeros = "00".repeat(32);
    let long = "a".repeat(5000);
    let padded = format!(" {HEX}");
    let twice = format!("{HEX}\n\n");
    let loose = BASE64.replace("h8=", "h9=");
    for content in [
        "",
        "\n",
        HEX.get(..62).unwrap(),
        BASE64.get(..43).unwrap(),
        "zz",
        &zeros,
        &long,
        &padded,
        &twice,
        &loose,
    ] {
        let path = written(&dir, "kek", content, 0o600);
        assert!(matches!(refusal(&path), LocalKeyError::Malformed), "{content}");
    }
}

#[test]
fn a_name_is_given_once() {
    let dir = TempDir::new().unwrap();
    let path = written(&dir, "kek", HEX, 0o600);
    let mut service = keys();
    service.add_key_file("local", &path).unwrap();
    assert!(matches!(
        service.add_key_file("local", &path),
        Err(LocalKeyError::NameTaken)
    ));
    assert!(matches!(
        service.add_key_file("", &path),
        Err(LocalKeyError::NameTaken)
    ));
}

#[test]
fn a_wrong_short_or_weakened_passphrase_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("passphrase");
    let right = SecretString::from("correct horse battery staple");
    create_passphrase_file(&right, &path).unwrap();
    let add = |text: &str| {
        keys()
            .add_passphrase("local", &SecretString::from(text), &path)
            .unwrap_err()
    };
    assert!(matches!(
        add("correct horse battery stapler"),
        LocalKeyError::WrongPassphrase
    ));
    assert!(matches!(add("too short"), LocalKeyError::PassphraseTooShort));

    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("horse"));
    std::fs::write(&path, text.replace("600000", "599999")).unwrap();
    assert!(matches!(
        add("correct horse battery staple"),
        LocalKeyError::TooFewIterations
    ));
    std::fs::write(&path, text.replace("600000", "4000000000")).unwrap();
    assert!(matches!(
        add("correct horse battery staple"),
        LocalKeyError::Malformed
    ));
    std::fs::write(&path, text.replace("/1", "/2")).unwrap();
    assert!(matches!(
        add("correct horse battery staple"),
        LocalKeyError::Malformed
    ));
}

#[test]
fn debug_output_shows_no_key() {
    let dir = TempDir::new().unwrap();
    let mut service = keys();
    service
        .add_key_file("local", &written(&dir, "kek", HEX, 0o600))
        .unwrap();
    let shown = format!("{service:?}");
    assert!(shown.contains("REDACTED") && !shown.contains("30, 31"), "{shown}");
}

#[test]
fn the_wrap_matches_bytes_made_by_another_implementation() {
    // tests/vectors/local_wrap.json, made by tests/vectors/generate.py (Python, OpenSSL).
    let kek: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).unwrap());
    let context = KeyContext {
        org: Some("org_00000000000000000000000001".to_owned()),
        odk: "key_00000000000000000000000002".to_owned(),
        purpose: "postern-odk",
    };
    let wrapped = envelope::wrap_with_salt(&kek, &context, &[0x42; 32], &[0x53; 32]).unwrap();
    let hex: String = wrapped.iter().map(|byte| format!("{byte:02x}")).collect();
    let vectors = include_str!("../../../tests/vectors/local_wrap.json");
    assert!(vectors.contains(&format!("\"{hex}\"")), "{hex}");
}
