//! Processor time of a vend, stage by stage: the process's clock over many calls of one stage, no load, workers running.

use std::{hint::black_box, sync::Arc, time::Instant};

use postern::{
    crypto::api_key,
    domain::{DecisionId, EntryId},
    flows::{actions, authenticate, decide, token, vend},
    policy::OrgPermit,
    release::{Release, open},
};
use rustix::time::ClockId;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    load::cpu,
    measure::{Done, failed, line, short},
    world::World,
};

struct Meter {
    calls: u32,
    begun: (f64, Instant),
    figures: serde_json::Map<String, Value>,
}

impl Meter {
    fn begin(&mut self) {
        self.begun = (cpu(ClockId::ProcessCPUTime), Instant::now());
    }

    fn end(&mut self, name: &str) {
        let calls = f64::from(self.calls);
        let busy = (cpu(ClockId::ProcessCPUTime) - self.begun.0) * 1e6 / calls;
        let wall = self.begun.1.elapsed().as_secs_f64() * 1e6 / calls;
        line(
            &format!("  {name}"),
            format!("{busy:.1} us CPU, {wall:.1} us elapsed"),
        );
        let round = |value: f64| (value * 10.0).round() / 10.0;
        self.figures.insert(
            name.to_owned(),
            json!({"cpu_us": round(busy), "elapsed_us": round(wall)}),
        );
    }
}

/// Every stage of `flows::vend` for a warm narrowed token, called as it calls them.
pub(crate) async fn measure(world: &World, agent_key: &str) -> Done<Value> {
    let calls = if short() { 100 } else { 1_000 };
    let mut meter = Meter {
        calls,
        begun: (0.0, Instant::now()),
        figures: serde_json::Map::new(),
    };
    let (deps, caller, ask) = (&world.deps, world.agent, world.ask());
    let permit = OrgPermit::Policy;
    println!("stages of one vend, one after the other ({calls} calls each)");

    meter.begin();
    for _ in 0..calls {
        let (kind, key) = api_key::parse(agent_key).ok_or("not a key")?;
        black_box(authenticate::by_key(deps, kind, &key).await?);
    }
    meter.end("authenticate, by the database");

    meter.begin();
    for _ in 0..calls {
        let (_, key) = api_key::parse(agent_key).ok_or("not a key")?;
        black_box(authenticate::remembered_agent(deps, &key).await?);
    }
    meter.end("authenticate, from memory");

    meter.begin();
    for _ in 0..calls {
        black_box(actions::prepare(deps, caller, &ask).await?);
    }
    meter.end("facts, args, canonical form, action hash");
    let prepared = actions::prepare(deps, caller, &ask).await?;

    meter.begin();
    for _ in 0..calls {
        black_box(decide::evaluate(deps, &prepared, &ask, &permit)?);
    }
    meter.end("policy");
    let decided = decide::evaluate(deps, &prepared, &ask, &permit)?;

    let mut signed = Vec::new();
    meter.begin();
    for _ in 0..calls {
        let id = DecisionId::new(decided.at, &*deps.random)?;
        let entry = EntryId::new(decided.at, &*deps.random)?;
        let own = decide::sign(deps, &prepared, &ask, &decided, id, Some(entry))?;
        signed.push((own, entry));
    }
    meter.end("sign");

    let mut verified = Vec::new();
    meter.begin();
    for (own, entry) in signed {
        verified.push(decide::check_own(deps, &prepared, &ask, own, entry).map_err(failed)?);
    }
    meter.end("verify");

    meter.begin();
    for _ in 0..calls {
        black_box(token::narrowed(deps, &prepared, prepared.scopes.clone()).await?);
    }
    meter.end("token and its key at hand");
    let ready = token::narrowed(deps, &prepared, prepared.scopes.clone()).await?;

    let mode = ask.mode.ok_or("the bench asks for a mode")?;
    let mut releases = Vec::new();
    meter.begin();
    for decision in verified {
        let entry = vend::entry_of(deps, &prepared, &ask, &decided, &decision, mode, &ready).await?;
        let release = Release {
            org: caller.org,
            epoch: prepared.epoch(),
            secret: (world.grant, ready.kind.clone(), ready.row.generation),
            idempotency: None,
            entry,
        };
        releases.push((decision, release));
    }
    meter.end("draft and seal the entry");

    let (mut receipts, mut crowd) = (Vec::new(), releases.split_off(releases.len() / 2));
    meter.calls = u32::try_from(releases.len())?;
    meter.begin();
    for (decision, release) in releases {
        receipts.push(deps.gate.release(decision, release).await?);
    }
    meter.end("gate, alone in its batch");

    meter.calls = u32::try_from(crowd.len())?;
    meter.begin();
    while !crowd.is_empty() {
        let mut tasks = JoinSet::new();
        for (decision, release) in crowd.split_off(crowd.len().saturating_sub(CROWD)) {
            let deps = Arc::clone(deps);
            tasks.spawn(async move { deps.gate.release(decision, release).await });
        }
        while let Some(receipt) = tasks.join_next().await {
            receipts.push(receipt??);
        }
    }
    meter.end("gate, 64 at a time");

    let grant = &prepared.grant.facts.grant;
    // The oldest receipts may have died meanwhile; a call that finds a dead one would measure nothing.
    let living: Vec<_> = receipts.iter().filter(|receipt| receipt.live().is_ok()).collect();
    meter.calls = u32::try_from(living.len())?;
    meter.begin();
    for receipt in living {
        black_box(open::access_token(receipt, &ready.key, grant, &ready.kind)?);
    }
    meter.end("open");
    Ok(meter.figures.into())
}

/// As many wait for the gate at 64 connections.
const CROWD: usize = 64;
