//! Answers kept beside the database: written, read, of earlier versions.

use super::*;

fn answered(grant: u8, fence: i64) -> Answered {
    let row = |scopes| SecretRow {
        generation: 8,
        sealed: SealedSecret {
            odk: KeyId::from_bytes([3; 16]),
            sealed: vec![0, 255, 7],
            wrapped_dek: vec![1; 60],
        },
        scopes,
        expires_at: Some(Time::from_unix_seconds(1_800_000_000)),
    };
    Answered {
        org: OrgId::from_bytes([1; 16]),
        grant: GrantId::from_bytes([grant; 16]),
        fence,
        generation: 7,
        connected_epoch: 2,
        binding: [5; 32],
        kind: SecretKind::Narrowed("abc".to_owned()),
        access: Some(row(ScopeSet::parse("a b", ' ').ok())),
        refresh: Some(row(None)),
        is_foreign: true,
    }
}

#[test]
fn what_was_put_is_found_again_at_the_next_start_the_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let (second, first) = (answered(4, 12), answered(4, 9));
    let spool = Spool::open(dir.path()).unwrap();
    spool.put_now(&second).unwrap();
    spool.put_now(&first).unwrap();
    let spool = Spool::open(dir.path()).unwrap();
    assert_eq!(spool.grants(), [first.grant]);
    let found = spool.of_now(first.grant).unwrap();
    assert_eq!(format!("{found:?}"), format!("{:?}", [&first, &second]));
    for answered in &found {
        spool.remove_now(answered).unwrap();
        spool.remove_now(answered).unwrap();
    }
    assert!(!spool.holds(first.grant));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_refresh_token_alone_is_an_answer_and_no_token_at_all_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let alone = Answered {
        access: None,
        ..answered(4, 9)
    };
    let nothing = Answered {
        refresh: None,
        ..Answered {
            grant: GrantId::from_bytes([5; 16]),
            ..alone.clone()
        }
    };
    let spool = Spool::open(dir.path()).unwrap();
    spool.put_now(&alone).unwrap();
    spool.put_now(&nothing).unwrap();
    let spool = Spool::open(dir.path()).unwrap();
    let found = spool.of_now(alone.grant).unwrap();
    assert_eq!(format!("{found:?}"), format!("{:?}", [&alone]));
    assert_eq!(spool.grants(), [alone.grant]);
}

/// Earlier versions wrote `access` as a plain object and no `is_foreign`.
#[test]
fn files_of_earlier_versions_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let answered = answered(4, 9);
    let mut file = serde_json::to_value(Kept::from(&answered)).unwrap();
    let members = file.as_object_mut().unwrap();
    let secret = serde_json::to_value(KeptSecret::from(answered.access.as_ref().unwrap())).unwrap();
    assert_eq!(members.insert("access".to_owned(), secret.clone()), Some(secret));
    members.remove("is_foreign");
    fs::write(dir.path().join("grt_x.9.answer"), file.to_string()).unwrap();
    let found = Spool::open(dir.path()).unwrap().of_now(answered.grant).unwrap();
    let then = Answered {
        is_foreign: false,
        ..answered
    };
    assert_eq!(format!("{found:?}"), format!("{:?}", [&then]));
}

#[test]
fn a_file_that_is_gone_keeps_no_other_of_its_grant_from_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (answered(4, 9), answered(4, 12));
    let spool = Spool::open(dir.path()).unwrap();
    spool.put_now(&first).unwrap();
    spool.put_now(&second).unwrap();
    fs::remove_file(spool.0.path(&first, WHOLE)).unwrap();
    let found = spool.of_now(first.grant).unwrap();
    assert_eq!(format!("{found:?}"), format!("{:?}", [&second]));
    fs::remove_file(spool.0.path(&second, WHOLE)).unwrap();
    assert!(spool.of_now(first.grant).unwrap().is_empty());
    assert!(!spool.holds(first.grant));
}

#[test]
fn an_answer_whose_name_may_not_survive_the_machine_waits_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path()).unwrap();
    let answered = answered(4, 9);
    spool
        .put_with(&answered, |_| Err(io::Error::other("no")))
        .unwrap_err();
    let found = spool.of_now(answered.grant).unwrap();
    assert_eq!(format!("{found:?}"), format!("{:?}", [&answered]));
    spool.put_now(&answered).unwrap();
    assert_eq!(spool.of_now(answered.grant).unwrap().len(), 1, "it is one file");
}

#[test]
fn what_was_half_written_or_is_damaged_keeps_nobody_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    Spool::open(dir.path()).unwrap().put_now(&answered(4, 1)).unwrap();
    let kept = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&kept).unwrap();
    fs::write(dir.path().join("grt_x.1.draft"), text.get(..40).unwrap()).unwrap();
    for (number, damaged) in [
        "",
        "{}",
        text.get(..text.len() - 2).unwrap(),
        &text.replace("narrowed:", "other:"),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(dir.path().join(format!("grt_x.{number}.answer")), damaged).unwrap();
    }
    let spool = Spool::open(dir.path()).unwrap();
    assert_eq!(spool.grants(), [answered(4, 1).grant]);
    assert!(!dir.path().join("grt_x.1.draft").exists());
    assert!(
        dir.path().join("grt_x.1.answer").exists(),
        "for whoever looks into it"
    );
}

/// A pipe that nobody writes, in the place of the file: whoever opens it for reading hangs.
#[tokio::test]
async fn nobody_waits_for_a_directory_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path()).unwrap();
    Arc::get_mut(&mut spool.0).unwrap().turns = DiskTurns::within(std::time::Duration::from_millis(200));
    let (first, second) = (answered(4, 9), answered(5, 9));
    spool.put(&first).await.unwrap();
    spool.put(&second).await.unwrap();
    let file = spool.0.path(&first, WHOLE);
    let moved = file.with_extension("moved");
    fs::rename(&file, &moved).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(made.success());
    let timed_out = |error: &SpoolError| matches!(error, SpoolError::Io { cause, .. } if cause.kind() == io::ErrorKind::TimedOut);
    assert!(timed_out(&spool.of(first.grant).await.unwrap_err()));
    // And nothing is begun beside it, but for what would be lost.
    assert!(timed_out(&spool.remove(&second).await.unwrap_err()));
    spool.put(&answered(6, 9)).await.unwrap();
    // Linux opens a pipe for both without waiting, and lets go on who waited for a writer.
    drop(OpenOptions::new().read(true).write(true).open(&file).unwrap());
    fs::rename(&moved, &file).unwrap();
    let goes_on = async {
        while spool.of(first.grant).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), goes_on)
        .await
        .expect("it never went on");
    spool.remove(&second).await.unwrap();
}
