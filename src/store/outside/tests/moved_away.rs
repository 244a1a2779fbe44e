//! The file is moved away, or another one put in its place, while a process writes it; and it is read while others write.

use super::*;

fn lines_at(path: &Path) -> usize {
    std::fs::read_to_string(path).unwrap().lines().count()
}

#[tokio::test]
async fn what_is_written_while_the_file_is_elsewhere_is_told_and_is_in_it_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Arc::new(Outside::open(dir.path()).unwrap());
    write(&outside, vec![line(1, 1, Fact::Began), line(1, 2, checkpoint(3))]);
    let elsewhere = dir.path().join("checkpoints.jsonl.1");
    std::fs::rename(file(&dir), &elsewhere).unwrap();
    // Whoever looks whether it works hears that it does not, whether or not anything waits.
    outside.flush_now().unwrap_err();
    for replaced in [false, true] {
        if replaced {
            std::fs::write(file(&dir), "").unwrap();
        }
        outside.add([line(1, 3, moved("grant", "g"))]);
        outside.flush_now().unwrap_err();
        outside.adopt(vec![line(2, 1, Fact::Began)]).await.unwrap_err();
        assert_eq!(lines_at(&elsewhere), 3 + usize::from(replaced));
    }
    // It would begin with nothing.
    outside.compact_now(&mut held(&outside.file)).unwrap_err();
    assert_eq!(lines_at(&file(&dir)), 0);
    std::fs::rename(&elsewhere, file(&dir)).unwrap();
    outside.flush_now().unwrap();
    outside.adopt(vec![line(2, 1, Fact::Began)]).await.unwrap();
    drop(outside);
    let kept = Outside::open(dir.path()).unwrap().kept().unwrap();
    let one = &kept[&org(1)];
    assert_eq!((one.size, one.epoch.counter), (3, 3));
    assert!(one.moved.contains_key(&("grant".to_owned(), "g".to_owned())));
    assert!(kept.contains_key(&org(2)));
}

/// Answers to changes wait for the lock.
#[test]
fn the_file_is_read_while_others_write_it() {
    let dir = tempfile::tempdir().unwrap();
    let outside = Outside::open(dir.path()).unwrap();
    write(&outside, vec![line(1, 1, checkpoint(3))]);
    let writing = held(&outside.file);
    let opened = open(&file(&dir)).unwrap();
    drop(writing);
    // Others write more, and put a shorter file in its place.
    write(&outside, vec![line(1, 1, checkpoint(4))]);
    outside.compact_now(&mut held(&outside.file)).unwrap();
    let then = fold(&file(&dir), opened, || ()).unwrap();
    assert_eq!(then[&org(1)].size, 3);
    assert_eq!(outside.kept().unwrap()[&org(1)].size, 4);
}
