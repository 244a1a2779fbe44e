//! Agents at work: letters, looks and tokens for everybody, each with a key of its own, repeated when nothing was heard.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    deployment::Deployment,
    dice::Dice,
    http::{Call, Heard},
};

/// What an agent wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Postern sends a letter, whose subject nobody else uses.
    Send,
    /// Postern looks at the mail.
    List,
    /// A token, to look at the mail with.
    Token,
}

/// One thing an agent wanted, under one idempotency key.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) number: u64,
    pub(crate) tenant: usize,
    pub(crate) person: usize,
    pub(crate) want: Want,
    pub(crate) began: Instant,
    pub(crate) tries: Vec<Try>,
    call: Call,
}

/// One request for it.
#[derive(Debug, Clone)]
pub(crate) struct Try {
    pub(crate) sent: Instant,
    pub(crate) over: Instant,
    /// The status; none when nothing was heard.
    pub(crate) status: Option<u16>,
    pub(crate) code: String,
    pub(crate) entry: Option<String>,
    /// What the provider said to Postern's call, if that was heard.
    provider: Option<u64>,
}

impl Try {
    pub(crate) fn released(&self) -> bool {
        self.status == Some(200)
    }

    /// Whether the provider did what was released: it may have called the token dead when no time was left to renew it.
    pub(crate) fn done(&self) -> bool {
        self.released() && self.provider.is_some_and(|status| status < 300)
    }

    /// Whether asking again would say the same.
    pub(crate) fn settled(&self) -> bool {
        self.status
            .is_some_and(|status| !matches!(status, 429 | 500 | 503))
            && self.code != "in_progress"
    }

    /// What it is counted as.
    pub(crate) fn kind(&self) -> &str {
        match self.status {
            None => "nothing",
            Some(200) => "released",
            Some(_) => &self.code,
        }
    }
}

impl Asked {
    /// The entries that any try named: never more than one.
    pub(crate) fn entries(&self) -> Vec<&str> {
        let mut entries: Vec<&str> = self.tries.iter().filter_map(|one| one.entry.as_deref()).collect();
        entries.sort_unstable();
        entries.dedup();
        entries
    }

    pub(crate) fn released(&self) -> bool {
        self.tries.iter().any(Try::released)
    }

    pub(crate) fn settled(&self) -> bool {
        self.tries.last().is_some_and(Try::settled)
    }

    /// Asks again at this address.
    pub(crate) async fn ask(&mut self, at: SocketAddr, within: Duration) {
        let sent = Instant::now();
        let heard = Call {
            at,
            ..self.call.clone()
        }
        .ask(within)
        .await;
        self.note(sent, heard);
    }

    fn note(&mut self, sent: Instant, heard: Heard) {
        let (status, body) = heard.map_or((None, Value::Null), |(status, body)| (Some(status), body));
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        self.tries.push(Try {
            sent,
            over: Instant::now(),
            status,
            code: text("code").unwrap_or_default(),
            entry: text("entry_id"),
            provider: body["status"].as_u64(),
        });
    }
}

/// Something an agent could ask for somebody.
pub(crate) fn asked(
    deployment: &Deployment,
    (tenant, person): (usize, usize),
    want: Want,
    number: u64,
) -> Asked {
    let who = &deployment.tenants[tenant].people[person];
    let (tool, args) = match want {
        Want::Send => {
            let letter = json!({"to": [who.writes_to], "subject": subject(number), "body": "Campaign."});
            ("messages.send", letter)
        }
        Want::List | Want::Token => ("messages.list", json!({"limit": 1})),
    };
    let mut body = json!({
        "grant": deployment.grant_of(tenant, person), "tool": tool, "args": args,
        "idempotency_key": format!("campaign-{number}"),
    });
    if want == Want::Token {
        body["mode"] = json!("token");
    }
    let key = &deployment.tenants[tenant].agent_key;
    Asked {
        number,
        tenant,
        person,
        want,
        began: Instant::now(),
        tries: Vec::new(),
        call: deployment.replicas[0].call("POST", "/v1/vend", key, Some(body)),
    }
}

/// The subject of a letter.
pub(crate) fn subject(number: u64) -> String {
    format!("campaign {number}")
}

/// Agents under way.
pub(crate) struct Load {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    /// While true, many clients go away before they hear anything.
    pub(crate) hangs_up: Arc<AtomicBool>,
    ledger: Arc<Mutex<Vec<Asked>>>,
}

impl Load {
    /// Agents of everybody begin to ask, at all replicas.
    pub(crate) fn start(deployment: &Arc<Deployment>, numbers: &Arc<AtomicU64>, dice: &mut Dice) -> Self {
        let (stop, stopped) = watch::channel(false);
        let load = Self {
            tasks: JoinSet::new(),
            stop,
            hangs_up: Arc::default(),
            ledger: Arc::default(),
        };
        load.spawn_all(deployment, numbers, dice, &stopped)
    }

    fn spawn_all(
        mut self,
        deployment: &Arc<Deployment>,
        numbers: &Arc<AtomicU64>,
        dice: &mut Dice,
        stopped: &watch::Receiver<bool>,
    ) -> Self {
        for (index, who) in deployment.everybody().repeat(AGENTS_EACH).into_iter().enumerate() {
            let agent = Agent {
                deployment: Arc::clone(deployment),
                numbers: Arc::clone(numbers),
                dice: dice.split(),
                who,
                // Every other one does not wait for the end of a silence, but comes again in the midst of it.
                patience: if index % 2 == 0 { PATIENCE } else { IMPATIENT },
                hangs_up: Arc::clone(&self.hangs_up),
                ledger: Arc::clone(&self.ledger),
            };
            self.tasks.spawn(agent.work(stopped.clone()));
        }
        self
    }

    /// Waits until [`FEW`] that were sent after a moment have been released; on a busy machine that may take a while.
    pub(crate) async fn until_released(&self, since: Instant) {
        let begun = Instant::now();
        let released = || {
            let ledger = self.ledger.lock().unwrap();
            let tries = ledger.iter().flat_map(|asked| &asked.tries);
            tries
                .filter(|tried| tried.released() && tried.sent > since)
                .count()
        };
        while released() < FEW && begun.elapsed() < LOADED_WITHIN {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Lets every agent finish what it is at; returns what they asked.
    pub(crate) async fn stop(mut self) -> Vec<Asked> {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut self.ledger.lock().unwrap())
    }
}

struct Agent {
    deployment: Arc<Deployment>,
    numbers: Arc<AtomicU64>,
    dice: Dice,
    who: (usize, usize),
    patience: Duration,
    hangs_up: Arc<AtomicBool>,
    ledger: Arc<Mutex<Vec<Asked>>>,
}

impl Agent {
    async fn work(mut self, stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            let want = match self.dice.below(10) {
                0..=5 => Want::Send,
                6..=7 => Want::Token,
                _ => Want::List,
            };
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let mut asked = asked(&self.deployment, self.who, want, number);
            for _ in 0..TRIES {
                self.one_try(&mut asked).await;
                if asked.settled() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50 + self.dice.below(200))).await;
            }
            self.ledger.lock().unwrap().push(asked);
            tokio::time::sleep(Duration::from_millis(self.dice.below(120))).await;
        }
    }

    async fn one_try(&mut self, asked: &mut Asked) {
        let replicas = self.deployment.replicas.len();
        let at = self.deployment.replicas[self.dice.index(replicas)].listen;
        if self.hangs_up.load(Ordering::Relaxed) && self.dice.below(3) > 0 {
            let sent = Instant::now();
            let call = Call {
                at,
                ..asked.call.clone()
            };
            call.hang_up(Duration::from_micros(self.dice.below(40_000))).await;
            asked.note(sent, None);
        } else {
            asked.ask(at, self.patience).await;
        }
    }
}

/// Fewer releases are no load.
pub(crate) const FEW: usize = 20;
/// Whoever waits longer for them is told by the check that there was none.
const LOADED_WITHIN: Duration = Duration::from_secs(60);
/// Agents for each person.
const AGENTS_EACH: usize = 8;
const TRIES: usize = 3;
/// How long an agent waits.
const PATIENCE: Duration = Duration::from_secs(9);
const IMPATIENT: Duration = Duration::from_secs(1);
