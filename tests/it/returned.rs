//! What a transaction leaves on its connection to PostgreSQL: nothing that whoever is given it next would notice. The very
//! connections of the pools are asked, between two transactions.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use postern::{
    domain::{GrantId, connector::Category},
    flows::{
        refresh::{self, Want},
        revoke, sequence, sweep,
    },
    store::{Location, Selector},
};
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
};
use url::Url;

use super::{
    hangups::{AT_LEAST, dropped_after, nothing_stays_open},
    harness::{World, database, ending, token},
    leases::run,
};

/// What is left on a connection, one row each. What is said of a transaction alone (`transaction_…`) is said anew for each;
/// prepared statements of the protocol are kept on purpose, those of SQL would be somebody's.
const LEFT: &str = "
    SELECT 'setting ' || name || ' = ' || setting FROM pg_settings
      WHERE source = 'session' AND name NOT LIKE 'transaction\\_%' AND (name, setting) <> ('client_min_messages', 'error')
    UNION ALL SELECT 'orgs ' || current_setting('postern.orgs', true) WHERE current_setting('postern.orgs', true) <> ''
    UNION ALL SELECT 'hash ' || current_setting('postern.hash', true) WHERE current_setting('postern.hash', true) <> ''
    UNION ALL SELECT 'role ' || current_user WHERE current_user <> session_user
    UNION ALL SELECT 'lock ' || mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'
    UNION ALL SELECT 'table ' || relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()
    UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE name <> ''
    UNION ALL SELECT 'channel ' || name FROM pg_listening_channels() AS name
    UNION ALL SELECT 'statement ' || name FROM pg_prepared_statements WHERE from_sql";

/// Who is told what is left on a connection.
type Look = oneshot::Sender<Vec<String>>;

/// A way to a server that can ask over each connection, while nobody else does.
struct Desk {
    open: Arc<Mutex<Vec<mpsc::UnboundedSender<Look>>>>,
}

impl Desk {
    /// A way to a database's server, and the database at the end of it.
    async fn to(location: Location) -> (Self, Location) {
        let Location::Postgres(mut settings) = location else {
            panic!("a file has no connections")
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut url = Url::parse(&settings.url).unwrap();
        let server = url.port().unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        // What passes is read.
        url.set_query(Some("sslmode=disable"));
        settings.url = url.into();
        let open = Arc::default();
        tokio::spawn(accept(listener, server, Arc::clone(&open)));
        (Self { open }, Location::Postgres(settings))
    }

    /// What is left on each open connection, as soon as it is nobody's.
    async fn left(&self) -> Vec<Vec<String>> {
        let open = self.open.lock().unwrap().clone();
        let mut left = Vec::new();
        for one in open {
            let (tell, told) = oneshot::channel();
            // Most of those that were closed are known to be.
            if one.send(tell).is_err() {
                continue;
            }
            let told = tokio::time::timeout(Duration::from_secs(10), told).await;
            left.extend(told.expect("a connection is never free"));
        }
        left
    }
}

async fn accept(listener: TcpListener, server: u16, open: Arc<Mutex<Vec<mpsc::UnboundedSender<Look>>>>) {
    while let Ok((client, _)) = listener.accept().await {
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await.unwrap();
        let (look, looks) = mpsc::unbounded_channel();
        open.lock().unwrap().push(look);
        tokio::spawn(lead(client, server, looks));
    }
}

async fn lead(client: TcpStream, server: TcpStream, mut looks: mpsc::UnboundedReceiver<Look>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut asked, mut said) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut answers = Answers::default();
    loop {
        // Either side may hang up at any time.
        tokio::select! {
            biased;
            length = from_client.read(&mut asked) => {
                let Ok(length @ 1..) = length else { return };
                answers.is_free = false;
                if to_server.write_all(&asked[..length]).await.is_err() {
                    return;
                }
            }
            length = from_server.read(&mut said) => {
                let Ok(length @ 1..) = length else { return };
                answers.take(&said[..length]);
                if to_client.write_all(&said[..length]).await.is_err() {
                    return;
                }
            }
            look = looks.recv(), if answers.is_free => {
                let Some(look) = look else { return };
                answers.is_free = false;
                if to_server.write_all(&query(LEFT)).await.is_err() {
                    return;
                }
                let mut left = Vec::new();
                while !answers.is_free {
                    let Ok(length @ 1..) = from_server.read(&mut said).await else { return };
                    left.extend(answers.take(&said[..length]));
                }
                look.send(left).unwrap();
            }
        }
    }
}

/// A simple query, as the protocol has it.
fn query(sql: &str) -> Vec<u8> {
    let length = u32::try_from(sql.len() + 5).unwrap().to_be_bytes();
    [b"Q".as_slice(), &length, sql.as_bytes(), b"\0"].concat()
}

/// What a server says, message by message.
#[derive(Default)]
struct Answers {
    bytes: Vec<u8>,
    /// It waits for the next query, and no transaction is open.
    is_free: bool,
}

impl Answers {
    /// The first value of every row that is complete with this, and what went wrong.
    fn take(&mut self, said: &[u8]) -> Vec<String> {
        self.bytes.extend_from_slice(said);
        let mut values = Vec::new();
        while let Some(length) = self.bytes.get(1..5) {
            let length = 1 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
            if self.bytes.len() < length {
                break;
            }
            let message: Vec<u8> = self.bytes.drain(..length).collect();
            let text =
                |from: usize| String::from_utf8_lossy(message.get(from..).unwrap_or_default()).into_owned();
            match message[0] {
                // Behind its kind and its length a row has how many values, and how long the first is.
                b'D' => values.push(text(11)),
                b'E' => values.push(format!("failed: {}", text(5))),
                b'Z' => self.is_free = message[5] == b'I',
                _ => {}
            }
        }
        values
    }
}

/// Transactions in the middle of which somebody hung up, and one of each kind.
async fn everything(world: &World, grant: GrantId) {
    let deps = &world.deps;
    for polls in 0..AT_LEAST {
        dropped_after(world.vend(world.read(grant)), polls).await;
        let ask = ending(Selector::User(world.ben));
        dropped_after(revoke::run(deps, world.org, ask), polls).await;
    }
    drop(deps.store.read(world.org).await.unwrap());
    drop(deps.store.write(world.org).await.unwrap());
    world.vend(world.read(grant)).await.unwrap();
    world.vend(token(world.read(grant))).await.unwrap();
    let granted = world.grant(grant).await;
    let want = Want::Renewed {
        than: Some(granted.generation),
    };
    refresh::ensure(deps, &granted, want).await.unwrap();
    let listed = world.api().get(&world.as_admin(), "/v1/grants").await;
    assert_eq!(listed.status, 200, "{}", listed.text());
    sequence::run(deps, world.org).await.unwrap();
    sweep::run(deps).await.unwrap();
    let counted = revoke::dry_run(deps, world.org, &Selector::All(true)).await;
    assert_eq!(counted.unwrap().grants, 1);
    world.revoke(Selector::User(world.ben)).await;
    nothing_stays_open(world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_transaction_says_or_holds_is_left_on_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let location = database::postgres(dir.path()).await;
    let Location::Postgres(settings) = &location else {
        panic!()
    };
    let mut owner = database::superuser(&database::name_of(settings)).await;
    let (desk, location) = Desk::to(location).await;
    let world = World::on(location).await;
    let grant = world.connect(world.ada, &[Category::Read]).await;
    everything(&world, grant).await;
    nothing_is_left(&desk).await;

    // Nor on one over which a statement failed.
    run(&mut owner, REFUSE).await;
    assert!(world.vend(world.read(grant)).await.is_err());
    run(&mut owner, "DROP TRIGGER refuse ON entries").await;
    everything(&world, grant).await;
    nothing_is_left(&desk).await;
}

async fn nothing_is_left(desk: &Desk) {
    let left = desk.left().await;
    // Two of those that end something, one of the gate's, and one for all else at least.
    assert!(left.len() >= 4, "{left:?}");
    assert!(left.iter().all(Vec::is_empty), "{left:?}");
}

async fn left_on(connection: &mut PgConnection) -> Vec<String> {
    let rows = sqlx::raw_sql(LEFT).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn the_look_at_a_connection_finds_whatever_could_be_left() {
    let dir = tempfile::tempdir().unwrap();
    let Location::Postgres(settings) = database::postgres(dir.path()).await else {
        panic!()
    };
    for (leave, found) in [
        (
            "SET statement_timeout = '10s'",
            "setting statement_timeout = 10000",
        ),
        ("SET postern.orgs = 'org_x'", "orgs org_x"),
        ("SET postern.hash = '00'", "hash 00"),
        ("SET ROLE postern_app", "role postern_app"),
        ("SELECT pg_advisory_lock(7)", "lock ExclusiveLock"),
        ("CREATE TEMPORARY TABLE mine (one int)", "table mine"),
        ("DECLARE mine CURSOR WITH HOLD FOR SELECT 1", "cursor mine"),
        ("LISTEN mine", "channel mine"),
        ("PREPARE mine AS SELECT 1", "statement mine"),
    ] {
        let mut connection = database::superuser(&database::name_of(&settings)).await;
        assert_eq!(left_on(&mut connection).await, Vec::<String>::new());
        run(&mut connection, leave).await;
        assert_eq!(left_on(&mut connection).await, [found]);
        connection.close().await.unwrap();
    }
}

/// From here on no entry is taken.
const REFUSE: &str = "
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON entries FOR EACH ROW EXECUTE FUNCTION refuse()";
