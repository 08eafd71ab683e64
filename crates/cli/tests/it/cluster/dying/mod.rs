//! Nodes that are killed, or stopped, under everything that clients do at once: what was acknowledged is there, no upload
//! begins anew, jobs go on at the other node.
//!
//! `CARRACK_NODE_KILLS` says how often (3 unless set), `CARRACK_NODE_STOPS` the same of stops in order.

mod ground;
mod jobs;
mod load;

use ground::Ground;
use jobs::Job;
use load::Load;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// With so many or more it is a measurement, whose figures have to be as promised.
const MEASURED: u64 = 20;
/// From the death of a node to the next progress of its job.
const TAKEN_OVER: Duration = Duration::from_secs(8);
/// The same when it is stopped in order, and how long it takes to end.
const HANDED_OVER: Duration = Duration::from_secs(2);

/// How a node ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    Stop,
}

/// What was measured.
#[derive(Default)]
struct Figures {
    ended: u64,
    /// The job's next progress: at the other node, or, when that was not faster, at the one that was killed and started again.
    jobs: Vec<Duration>,
    /// The next bytes that an upload was told of that broke.
    uploads: Vec<Duration>,
    /// How long the node took to end.
    ends: Vec<Duration>,
}

/// Count, median, 99th percentile and maximum, in milliseconds.
fn quantiles(mut all: Vec<Duration>) -> Value {
    all.sort();
    let at = |share: usize| all.get((all.len() * share / 100).min(all.len().saturating_sub(1)));
    let [median, p99, max] = [50, 99, 100].map(|share| at(share).map(|time| time.as_millis() as u64));
    json!({"count": all.len(), "median_ms": median, "p99_ms": p99, "max_ms": max})
}

/// Ends a node that runs a job at some moment of it; `None` when the job was over before.
async fn end_one(ground: &Ground, load: &Load<'_>, job: &Job, how: End, dice: u64) -> Option<Figures> {
    job.runner(ground).await?;
    tokio::time::sleep(Duration::from_millis(dice % 1500)).await;
    let victim = job.runner(ground).await?;
    let other = 1 - victim;
    let before = loop {
        // A connection from before its last death says nothing.
        if let Some(before) = jobs::deflated(ground, other).await {
            break before;
        }
    };
    let node = ground.nodes[victim].clone();
    let at = Instant::now();
    let ending = tokio::task::spawn_blocking(move || {
        let took = match how {
            End::Kill => {
                node.kill();
                at.elapsed()
            }
            End::Stop => node.stop(),
        };
        node.start_again();
        took
    });
    let nodes: &[(usize, u64)] = match how {
        // What it answers after its death it does anew.
        End::Kill => &[(other, before), (victim, 0)],
        End::Stop => &[(other, before)],
    };
    let taken = jobs::progress(ground, job, nodes).await.duration_since(at);
    let took = ending.await.unwrap();
    Some(Figures {
        ended: 1,
        jobs: vec![taken],
        uploads: load.first_byte(at).into_iter().collect(),
        ends: vec![took],
    })
}

/// Ends nodes so many times under load.
async fn rounds(ground: &Ground, load: &Load<'_>, how: End, times: u64) -> Figures {
    let mut all = Figures::default();
    let (mut dice, mut set) = (12_345_u64, 0);
    let mut job = Job::begin(ground, set).await;
    while all.ended < times {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match end_one(ground, load, &job, how, dice >> 33).await {
            Some(one) => {
                let Figures { jobs, uploads, ends, .. } = &one;
                println!("{}: job {jobs:?}; upload {uploads:?}; end {ends:?}", all.ended);
                all.ended += 1;
                all.jobs.extend(one.jobs);
                all.uploads.extend(one.uploads);
                all.ends.extend(one.ends);
            }
            None => {
                job.finish(ground).await;
                set += 1;
                job = Job::begin(ground, set).await;
            }
        }
    }
    job.finish(ground).await;
    load.end();
    all
}

async fn under_load(how: End, times: u64) -> Value {
    let ground = Ground::start(&[
        // Transfers last long enough to be in the midst of something.
        ("LIMITS__ROLES__USER__BANDWIDTH_PER_CONNECTION", "2MB"),
        ("LIMITS__FAILED_LOGINS_PER_MINUTE", "0"),
        ("SERVER__SHUTDOWN_GRACE", "1s"),
    ]);
    let load = Load::new(&ground).await;
    let (figures, ()) = tokio::join!(rounds(&ground, &load, how, times), load.run());
    let Figures { ended, jobs, uploads, ends } = figures;
    let lost = load.counts()["links whose use went with a node"];
    assert!(lost <= ended, "a node that ends takes the answer to one claim along, not {lost} of {ended}");
    let completions = load.completions().into_iter().map(Duration::from_millis).collect();
    json!({
        "ended": ended, "jobs": quantiles(jobs), "uploads": quantiles(uploads), "ends": quantiles(ends),
        "completions_again": quantiles(completions), "done": load.counts(),
    })
}

fn times(variable: &str) -> u64 {
    std::env::var(variable).map_or(3, |text| text.parse().unwrap())
}

fn within(figures: &Value, what: &str, bound: Duration) {
    let most = figures[what]["p99_ms"].as_u64().unwrap();
    assert!(most <= bound.as_millis() as u64, "{what}: p99 is {most} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_under_load_costs_nothing_but_retries() {
    let kills = times("CARRACK_NODE_KILLS");
    let figures = under_load(End::Kill, kills).await;
    println!("{figures}");
    if kills >= MEASURED {
        within(&figures, "jobs", TAKEN_OVER);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_stopped_under_load_hands_everything_over() {
    let stops = times("CARRACK_NODE_STOPS");
    let figures = under_load(End::Stop, stops).await;
    println!("{figures}");
    if stops >= MEASURED {
        within(&figures, "jobs", HANDED_OVER);
        within(&figures, "ends", HANDED_OVER);
    }
}
