//! Single stages against the least that does the same job: sealing, the strict gate, deciding.

mod measure;
#[path = "world/mod.rs"]
mod world;

use std::{collections::BTreeSet, hint::black_box, process::ExitCode, time::Instant};

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce};
use postern::{
    app,
    crypto::{AadParts, Gate, OsRandomness, digest, jcs, seal},
    domain::{
        AgentId, DelegationId, GrantId, Randomness as _, UserId, connector::Category, delegation::Delegation,
    },
    flows::{actions, decide},
    policy::OrgPermit,
};
use serde_json::{Value, json};

use measure::{Done, Machine, PAIRS, Spread, failed, line, short};
use world::World;

fn main() -> Done<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run())
}

async fn run() -> Done<ExitCode> {
    let mut machine = Machine::new();
    let mut worlds = Vec::new();
    for delegations in [10_u32, 1_000, 10_000] {
        // Nobody calls this one over the network.
        let (world, ..) = World::new("http://127.0.0.1:8700", app::open).await?;
        delegate(&world, delegations).await?;
        worlds.push(world);
    }
    let first = worlds.first().ok_or("no world")?;
    line("database", first.engine());
    machine.look(first.dir.path())?;
    let sealing = sealing(first).await?;
    let parsing = parsing()?;
    machine.look(first.dir.path())?;
    let (deciding, sane) = deciding(&worlds).await?;
    machine.look(first.dir.path())?;
    let (seen, _) = machine.report()?;
    println!(
        "{}",
        json!({"bench": "stages", "short": short(), "machine": seen, "seal": sealing, "json": parsing, "decide": deciding})
    );
    Ok(if sane {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Nanoseconds per call, over a stretch of calls.
fn timed<T>(calls: u32, mut call: impl FnMut() -> Done<T>) -> Done<f64> {
    let begun = Instant::now();
    for _ in 0..calls {
        black_box(call()?);
    }
    Ok(begun.elapsed().as_secs_f64() * 1e9 / f64::from(calls))
}

/// Sealing and opening 2 KB at its place against AES-256-GCM alone, its key set up beforehand.
async fn sealing(world: &World) -> Done<Value> {
    let calls = if short() { 2_000 } else { 20_000 };
    let random = OsRandomness::new();
    let connector = "acme-mail".parse().map_err(failed)?;
    let grant = world.grant.to_string();
    let place = AadParts {
        org: Some(world.agent.org),
        user: Some(UserId::from_bytes([1; 16])),
        connector: Some(&connector),
        account: "1",
        row: &grant,
        kind: "access_token",
        binding: Some(&[9; 32]),
        generation: 1,
    };
    let secret = vec![b'x'; 2048];
    let dek = seal::Dek::generate(&random).map_err(failed)?;
    let alone = Aes256Gcm::new(&[7_u8; 32].into());
    let nonce = Nonce::from([1_u8; 12]);
    let mut locked = secret.clone();
    let tag = alone
        .encrypt_inout_detached(&nonce, b"place", locked.as_mut_slice().into())
        .map_err(failed)?;
    let sealed = seal::seal(&dek, &place, &secret, &random)?;

    let mut rounds: [Vec<f64>; 6] = Default::default();
    for _ in 0..PAIRS {
        // A handle lives for seconds: taken anew for every round, as for every vend.
        let handle = world.deps.org_key(world.agent.org).await?;
        let whole = handle.seal(&place, &secret)?;
        let times = [
            timed(calls, || {
                let mut text = secret.clone();
                let tag = alone.encrypt_inout_detached(&nonce, b"place", text.as_mut_slice().into());
                Ok((text, tag.map_err(failed)?))
            })?,
            timed(calls, || Ok(seal::seal(&dek, &place, &secret, &random)?))?,
            timed(calls, || Ok(handle.seal(&place, &secret)?))?,
            timed(calls, || {
                let mut text = locked.clone();
                alone
                    .decrypt_inout_detached(&nonce, b"place", text.as_mut_slice().into(), &tag)
                    .map_err(failed)?;
                Ok(text)
            })?,
            timed(calls, || Ok(seal::open(&dek, &place, &sealed)?))?,
            timed(calls, || Ok(handle.open(&place, &whole)?))?,
        ];
        for (round, time) in rounds.iter_mut().zip(times) {
            round.push(time);
        }
    }
    let [bare_seal, one_seal, whole_seal, bare_open, one_open, whole_open] = &rounds;
    let mut figures = serde_json::Map::new();
    for (name, above, below) in [
        ("AES-256-GCM seal of 2 KB alone, ns", bare_seal, None),
        ("seal 2 KB under a DEK / AES-GCM alone", one_seal, Some(bare_seal)),
        (
            "seal 2 KB, DEK made and wrapped / AES-GCM alone",
            whole_seal,
            Some(bare_seal),
        ),
        ("AES-256-GCM open of 2 KB alone, ns", bare_open, None),
        ("open 2 KB under a DEK / AES-GCM alone", one_open, Some(bare_open)),
        (
            "open 2 KB, DEK unwrapped / AES-GCM alone",
            whole_open,
            Some(bare_open),
        ),
    ] {
        show(&mut figures, name, above, below);
    }
    Ok(figures.into())
}

/// From bytes to the hash of the canonical form, against parsing alone.
fn parsing() -> Done<Value> {
    let calls = if short() { 2_000 } else { 20_000 };
    let args = json!({
        "to": (0..8).map(|one| format!("person.{one}@acme.example")).collect::<Vec<_>>(),
        "subject": "The figures of the third quarter, once more",
        "body": "x".repeat(560), "limit": 50, "urgent": true,
        "labels": ["finance", "third-quarter", "to do"], "thread": {"id": "thr_0192", "position": 12},
    });
    let text = serde_json::to_vec(&args)?;
    let mut rounds: [Vec<f64>; 3] = Default::default();
    for _ in 0..PAIRS {
        let times = [
            timed(calls, || Ok(serde_json::from_slice::<Value>(&text)?))?,
            timed(calls, || Ok(Gate::ARGS.check(&text)?))?,
            timed(calls, || {
                let value = Gate::ARGS.check(&text)?;
                Ok(digest::sha256(&jcs::canonicalize(&value)?))
            })?,
        ];
        for (round, time) in rounds.iter_mut().zip(times) {
            round.push(time);
        }
    }
    let [plain, strict, whole] = &rounds;
    let mut figures = serde_json::Map::new();
    figures.insert("bytes".to_owned(), text.len().into());
    show(
        &mut figures,
        "serde_json parse of about 1 KB alone, ns",
        plain,
        None,
    );
    show(
        &mut figures,
        "strict parse / serde_json alone",
        strict,
        Some(plain),
    );
    show(
        &mut figures,
        "strict parse + canonical + SHA-256 / serde_json alone",
        whole,
        Some(plain),
    );
    Ok(figures.into())
}

/// The same decision in orgs of 10, 1,000 and 10,000 delegations: warm, and from facts read anew.
async fn deciding(worlds: &[World]) -> Done<(Value, bool)> {
    let (warm_calls, cold_calls) = if short() { (500, 20) } else { (4_000, 100) };
    let mut warm = vec![Vec::new(); worlds.len()];
    let mut cold = vec![Vec::new(); worlds.len()];
    for _ in 0..PAIRS {
        for (index, world) in worlds.iter().enumerate() {
            let ask = world.ask();
            let prepared = actions::prepare(&world.deps, world.agent, &ask).await?;
            let evaluate = || {
                Ok(decide::evaluate(
                    &world.deps,
                    &prepared,
                    &ask,
                    &OrgPermit::Policy,
                )?)
            };
            let decided = evaluate()?;
            if decided.evaluation.outcome.as_str() != "allow" {
                return Err("the measured action is not allowed".into());
            }
            let time = timed(warm_calls, evaluate)?;
            warm.get_mut(index).ok_or("round")?.push(time);
        }
        for (index, world) in worlds.iter().enumerate() {
            let ask = world.ask();
            let begun = Instant::now();
            for _ in 0..cold_calls {
                world.deps.facts.forget(world.agent.org);
                let prepared = actions::prepare(&world.deps, world.agent, &ask).await?;
                black_box(decide::evaluate(
                    &world.deps,
                    &prepared,
                    &ask,
                    &OrgPermit::Policy,
                )?);
            }
            let time = begun.elapsed().as_secs_f64() * 1e9 / f64::from(cold_calls);
            cold.get_mut(index).ok_or("round")?.push(time);
        }
    }
    let mut figures = serde_json::Map::new();
    let mut sane = true;
    for (words, rounds, most) in [
        ("decide, facts warm", &warm, 1.5),
        ("decide, facts read anew", &cold, 3.0),
    ] {
        let [few, thousand, many] = rounds.as_slice() else {
            return Err("three worlds".into());
        };
        show(&mut figures, &format!("{words}, 10 delegations, ns"), few, None);
        for (size, round) in [("1,000", thousand), ("10,000", many)] {
            let ratio = show(
                &mut figures,
                &format!("{words}: {size} / 10 delegations"),
                round,
                Some(few),
            );
            if ratio.median > most {
                println!("FAILED: {words} grows with the org: {} > {most}", ratio.median);
                sane = false;
            }
        }
    }
    Ok((figures.into(), sane))
}

/// Fills the org with delegations of other agents: every second one over the grant that is measured.
async fn delegate(world: &World, count: u32) -> Done<()> {
    let random = OsRandomness::new();
    let id = || -> Done<[u8; 16]> {
        let mut id = [0; 16];
        random.fill(&mut id).map_err(failed)?;
        Ok(id)
    };
    let mut tx = world.deps.store.write(world.agent.org).await?;
    for index in 0..count {
        let grant = if index % 2 == 0 {
            world.grant
        } else {
            GrantId::from_bytes(id()?)
        };
        let delegation = Delegation {
            id: DelegationId::from_bytes(id()?),
            org: world.agent.org,
            user: UserId::from_bytes(id()?),
            agent: AgentId::from_bytes(id()?),
            grant,
            categories: BTreeSet::from([Category::Read]),
            tools: BTreeSet::new(),
            raw: false,
            expires_at: None,
            made_epoch: 1,
            ended_at: None,
        };
        tx.replace_delegation(&delegation).await?;
    }
    Ok(tx.commit().await?)
}

fn show(
    figures: &mut serde_json::Map<String, Value>,
    name: &str,
    above: &[f64],
    below: Option<&Vec<f64>>,
) -> Spread {
    let spread = match below {
        Some(below) => Spread::ratio(above, below),
        None => Spread::of(above.to_vec()),
    };
    line(name, spread);
    figures.insert(name.to_owned(), spread.json());
    spread
}
