//! How the server misbehaves.

use std::sync::Mutex;

/// What happens instead of the right thing.
#[derive(Clone)]
pub(crate) enum Fault {
    /// This status, with `Retry-After: 0`.
    Status(u16),
    /// The answer's connection is cut after so many bytes.
    CutAfter(usize),
    /// A byte of the answer is another.
    Damage,
    /// The file `default/k` becomes another before the request is looked at.
    Replace(Vec<u8>),
}

struct Plan {
    method: &'static str,
    path: &'static str,
    skip: usize,
    times: usize,
    fault: Fault,
}

/// The misbehaviour that is to come.
#[derive(Default)]
pub(crate) struct Faults(Mutex<Vec<Plan>>);

impl Faults {
    /// `times` requests of `method` whose path contains `path` go wrong, after `skip` that do not.
    pub(crate) fn add(
        &self,
        method: &'static str,
        path: &'static str,
        skip: usize,
        times: usize,
        fault: Fault,
    ) {
        self.0.lock().unwrap().push(Plan { method, path, skip, times, fault });
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    pub(crate) fn next(&self, method: &str, path: &str) -> Option<Fault> {
        let mut plans = self.0.lock().unwrap();
        let plan = plans
            .iter_mut()
            .find(|plan| plan.times > 0 && plan.method == method && path.contains(plan.path))?;
        if plan.skip > 0 {
            plan.skip -= 1;
            return None;
        }
        plan.times -= 1;
        Some(plan.fault.clone())
    }
}
