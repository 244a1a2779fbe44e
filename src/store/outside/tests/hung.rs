//! The disk says nothing, neither yes nor no.

use std::{sync::mpsc, time::Duration};

use super::*;

/// A disk that hangs over every write until the sender is dropped.
fn hangs(outside: &Arc<Outside>) -> mpsc::Sender<()> {
    let ((hanging, released), (begins, begun)) = (mpsc::channel::<()>(), mpsc::channel());
    let outside = Arc::clone(outside);
    std::thread::spawn(move || {
        let _file = held(&outside.file);
        begins.send(()).unwrap();
        let _gone = released.recv();
    });
    begun.recv().unwrap();
    hanging
}

fn impatient(dir: &tempfile::TempDir) -> Arc<Outside> {
    let mut outside = Outside::open(dir.path()).unwrap();
    outside.writing = DiskTurns::within(Duration::from_millis(20));
    outside.reading = DiskTurns::within(Duration::from_millis(20));
    Arc::new(outside)
}

async fn until_it_goes_on(outside: &Arc<Outside>) {
    let flushed = tokio::time::timeout(Duration::from_secs(60), async {
        while outside.flush().await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    flushed.await.expect("it never went on");
}

#[tokio::test]
async fn what_waits_for_a_disk_that_hangs_is_not_said_to_be_there_and_is_there_once_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let outside = impatient(&dir);
    let hanging = hangs(&outside);
    for counter in 1..4 {
        outside.add([line(1, counter, moved("grant", &counter.to_string()))]);
        let error = outside.flush().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
    let adopted = outside.adopt(vec![line(2, 1, Fact::Began)]).await;
    assert_eq!(adopted.unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop(hanging);
    until_it_goes_on(&outside).await;
    let kept = outside.kept().unwrap();
    assert_eq!(kept[&org(1)].moved.len(), 3);
    assert!(!kept.contains_key(&org(2)), "it was refused");
}

#[tokio::test]
async fn a_read_that_hangs_is_given_up_and_keeps_no_write_from_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let outside = impatient(&dir);
    let (hanging, released) = mpsc::channel::<()>();
    let read = outside.on_disk(&outside.reading, move |_| {
        let _gone = released.recv();
        Ok(())
    });
    assert_eq!(read.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    outside.add([line(1, 1, Fact::Began)]);
    outside.flush().await.unwrap();
    drop(hanging);
}

/// Who has found an older database has others to tell.
#[tokio::test]
async fn whoever_seals_all_waits_for_no_disk_that_hangs_and_it_is_written_once_that_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let outside = impatient(&dir);
    outside.add([line(1, 1, Fact::Began)]);
    outside.flush().await.unwrap();
    let hanging = hangs(&outside);
    outside.seal_all("lost_entries");
    outside.release().await;
    let refused = Outside::open(dir.path());
    assert!(matches!(refused, Err(OutsideError::InUse { .. })), "{refused:?}");
    drop(hanging);
    until_it_goes_on(&outside).await;
    assert!(outside.kept().unwrap()[&org(1)].sealed.is_some());
}

#[tokio::test]
async fn a_directory_with_a_write_that_hangs_is_not_released() {
    let dir = tempfile::tempdir().unwrap();
    let outside = impatient(&dir);
    let hanging = hangs(&outside);
    outside.add([line(1, 1, Fact::Began)]);
    outside.flush().await.unwrap_err();
    outside.release().await;
    let refused = Outside::open(dir.path());
    assert!(matches!(refused, Err(OutsideError::InUse { .. })), "{refused:?}");
    drop(hanging);
    until_it_goes_on(&outside).await;
    released(&outside, &dir).await;
}
