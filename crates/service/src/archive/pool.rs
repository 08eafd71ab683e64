//! The threads that deflate: as many as there are cores, below everything that serves somebody who waits.

use carrack_domain::{Error, Result};
use carrack_zip::Deflater;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, oneshot};

/// Tasks that wait, for each thread: enough that none of them idles.
const WAITING: usize = 2;
/// The lowest priority there is: a thread that serves a transfer goes first.
const NICE: i32 = 19;

type Task = Box<dyn FnOnce(&mut Deflater) + Send>;

/// See the module's documentation. Its threads end when it is dropped.
pub(crate) struct Pool {
    tasks: SyncSender<Task>,
    /// As many as tasks fit.
    room: Semaphore,
    threads: usize,
}

impl Pool {
    /// Starts so many threads, at least one.
    pub(crate) fn start(threads: usize) -> Result<Pool> {
        let threads = threads.max(1);
        let (tasks, queue) = sync_channel::<Task>(threads * WAITING);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = queue.clone();
            std::thread::Builder::new()
                .name("deflate".to_owned())
                .spawn(move || work(&queue))
                .map_err(|error| Error::internal("start a thread that deflates", error))?;
        }
        Ok(Pool { tasks, room: Semaphore::new(threads * WAITING), threads })
    }

    /// Tasks that one who wants all threads busy has under way at once.
    pub(super) fn width(&self) -> usize {
        self.threads * WAITING
    }

    /// Runs `task` on one of the threads, once it is its turn.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Deflater) -> T + Send + 'static,
    ) -> Result<T> {
        let gone = || Error::broken("a thread that deflates is gone");
        let _room = self.room.acquire().await.map_err(|_| gone())?;
        let (sender, receiver) = oneshot::channel();
        let task: Task = Box::new(move |deflater| {
            // Whoever asked may have gone meanwhile.
            sender.send(task(deflater)).ok();
        });
        self.tasks.try_send(task).map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())
    }
}

fn work(queue: &Mutex<Receiver<Task>>) {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
        tracing::warn!(%error, "a thread that deflates has the priority of all others");
    }
    let mut deflater = Deflater::new();
    loop {
        let task = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(task) = task else { return };
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| task(&mut deflater))).is_err() {
            // The asker learns it from the answer that never comes.
            deflater = Deflater::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn tasks_come_back_and_panics_stay_where_they_are() {
        let pool = Arc::new(Pool::start(2).unwrap());
        let mut running = tokio::task::JoinSet::new();
        for number in 0..200_u32 {
            let pool = pool.clone();
            running.spawn(async move { pool.run(move |_| number * 2).await.unwrap() });
        }
        assert_eq!(running.join_all().await.into_iter().sum::<u32>(), 199 * 200);
        for _ in 0..10 {
            assert!(pool.run(|_| panic!("a bug")).await.is_err());
        }
        assert_eq!(pool.run(|_| 7).await.unwrap(), 7);
    }
}
