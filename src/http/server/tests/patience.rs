//! Connections between requests, and answers that are read slowly or not at all.

use tokio::net::TcpSocket;

use super::*;

/// A connection over which one request was answered.
async fn used(running: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    ask_again(running, &mut stream).await;
    stream
}

async fn ask_again(running: &Running, stream: &mut TcpStream) {
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", running.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "{answer:?}");
    }
}

/// How long until the other side closed it, with nothing more to read.
async fn until_closed(stream: &mut TcpStream) -> Duration {
    let began = Instant::now();
    assert_eq!(read_all(stream).await, "");
    began.elapsed()
}

#[tokio::test]
async fn an_idle_connection_outlives_the_time_for_a_head() {
    let running = Running::start(short()).await;
    let mut stream = used(&running).await;
    // Each pause is longer than a head may take, and all together are longer than a connection may be idle.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        ask_again(&running, &mut stream).await;
    }
    let closed = until_closed(&mut stream).await;
    assert!(
        (Duration::from_millis(1400)..Duration::from_secs(5)).contains(&closed),
        "{closed:?}"
    );
}

#[tokio::test]
async fn a_later_head_has_no_longer_than_the_first_one() {
    let running = Running::start(Limits {
        idle_timeout: Duration::from_secs(60),
        ..short()
    })
    .await;
    let mut stream = used(&running).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
    let closed = until_closed(&mut stream).await;
    assert!(
        (Duration::from_millis(250)..Duration::from_secs(5)).contains(&closed),
        "{closed:?}"
    );
}

#[tokio::test]
async fn an_idle_connection_makes_room_when_all_are_in_use() {
    let running = Running::start(Limits {
        connections: 1,
        idle_timeout: Duration::from_secs(60),
        ..short()
    })
    .await;
    let mut idle = used(&running).await;
    assert!(running.get("/").await.ends_with("hello"));
    assert_eq!(read_all(&mut idle).await, "");
}

/// A connection on which something large is to be read.
async fn asked_for_much(running: &Running) -> TcpStream {
    asked_for_much_over(running, TcpSocket::new_v4().unwrap()).await
}

async fn asked_for_much_over(running: &Running, socket: TcpSocket) -> TcpStream {
    let mut stream = socket.connect(running.address).await.unwrap();
    let request = format!(
        "GET /large HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        running.address
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Whether it was cut before it was written to its end.
async fn was_cut(mut stream: TcpStream) -> bool {
    let mut bytes = Vec::new();
    let _reset = stream.read_to_end(&mut bytes).await;
    bytes.len() < LARGE
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_cut() {
    let running = Running::start(short()).await;
    let stream = asked_for_much(&running).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(was_cut(stream).await);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_makes_room_when_all_are_in_use() {
    let running = Running::start(Limits {
        connections: 1,
        idle_timeout: Duration::from_secs(60),
        ..short()
    })
    .await;
    let stream = asked_for_much(&running).await;
    assert!(running.get("/").await.ends_with("hello"));
    assert!(was_cut(stream).await);
}

/// Reads about 100 KB a second for so long.
async fn read_steadily(stream: &mut TcpStream, time: Duration) {
    let (began, mut piece) = (Instant::now(), [0; 4096]);
    while began.elapsed() < time {
        stream.read_exact(&mut piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_read_slowly_keeps_its_place_when_all_are_in_use() {
    let head = Duration::from_secs(1);
    let running = Running::start(Limits {
        connections: 1,
        header_timeout: head,
        ..short()
    })
    .await;
    // What the client's system takes is not yet read.
    let small = TcpSocket::new_v4().unwrap();
    small.set_recv_buffer_size(16 * 1024).unwrap();
    let mut stream = asked_for_much_over(&running, small).await;
    tokio::select! {
        answer = running.get("/") => panic!("the place was given to another: {answer}"),
        () = read_steadily(&mut stream, head * 4) => {}
    }
    // Only what is read no more is cut.
    assert!(running.get("/").await.ends_with("hello"));
    assert!(was_cut(stream).await);
}

#[tokio::test]
async fn an_answer_that_is_read_slowly_is_written_to_its_end() {
    let running = Running::start(short()).await;
    let mut stream = asked_for_much(&running).await;
    let (began, mut read, mut piece) = (Instant::now(), 0, vec![0; 8 << 20]);
    loop {
        let some = stream.read_exact(&mut piece).await;
        if some.is_err() {
            break;
        }
        read += piece.len();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(began.elapsed() > Duration::from_millis(1_600));
    assert!(read >= LARGE - piece.len(), "{read}");
}
