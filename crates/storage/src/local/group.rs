//! Waiting for the disk together.
//!
//! Whoever comes while a round of syncs is under way waits for the next one, which is then done for all who wait: what a
//! caller wrote or renamed before it came is covered, since its round begins later. One of those who wait leads the
//! round, so there is no thread to be owned, and no more wait than there are threads that may block.
//!
//! *Means.* A folder is synced once for all. Where many wait, one `syncfs` takes the place of all syncs of files and
//! folders. It is used only where its answer can be trusted and its cost is ours (see [`Disk::covers_all`]); otherwise
//! every file is synced by whoever waits for it, at the same time as the others.
//! *Errors.* A round that fails fails for everybody in it, and for nobody else. The error is final: see [`super::sync`].

use rustix::io::Errno;
use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// From so many system calls on, one for the whole filesystem costs less.
const WORTH_COVERING_ALL: usize = 3;

/// A folder of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Folder {
    Staging,
    /// The blobs whose id begins with this byte.
    Shard(u8),
}

/// What a round does its work with.
pub(super) trait Disk {
    /// Whether [`Disk::sync_all`] reports every error, and is not going to wait for much that others wrote.
    fn covers_all(&self) -> bool;
    /// Syncs the filesystem.
    fn sync_all(&self) -> Result<(), Errno>;
    /// Syncs the names in a folder.
    fn sync_folder(&self, folder: Folder) -> Result<(), Errno>;
}

/// What somebody waits for.
enum Wanted {
    /// The data of a file of their own.
    Data,
    /// The names in these folders.
    Names([Folder; 2]),
}

/// What a round came to.
enum Verdict {
    /// The filesystem was synced.
    All(Result<(), Errno>),
    /// Folders were synced, these not; files were left to their owners.
    Folders(Vec<(Folder, Errno)>),
}

/// Those who wait for one verdict.
#[derive(Default)]
struct Round {
    verdict: OnceLock<Verdict>,
    /// Signalled with the verdict, and to one of those who wait when the round before has ended.
    turn: Condvar,
}

#[derive(Default)]
struct State {
    /// Somebody leads a round: those who come wait for the next.
    led: bool,
    /// What the round that has not begun yet is to do.
    wanted: Vec<Wanted>,
    next: Arc<Round>,
}

/// See the module's documentation.
pub(super) struct Group<D> {
    disk: D,
    state: Mutex<State>,
}

impl<D: Disk> Group<D> {
    pub(super) fn new(disk: D) -> Group<D> {
        Group { disk, state: Mutex::default() }
    }

    /// Makes the data of a file durable, by `alone` unless the whole filesystem is synced anyway.
    pub(super) fn data(&self, alone: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
        match self.wait(Wanted::Data).verdict.get() {
            Some(Verdict::All(result)) => *result,
            Some(Verdict::Folders(_)) => alone(),
            None => Err(Errno::IO),
        }
    }

    /// Makes the names in two folders durable.
    pub(super) fn names(&self, folders: [Folder; 2]) -> Result<(), Errno> {
        match self.wait(Wanted::Names(folders)).verdict.get() {
            Some(Verdict::All(result)) => *result,
            Some(Verdict::Folders(failed)) => {
                failed.iter().find(|(folder, _)| folders.contains(folder)).map_or(Ok(()), |(_, e)| Err(*e))
            }
            None => Err(Errno::IO),
        }
    }

    /// Joins the round that has not begun, and waits for its end, leading it when its turn comes.
    fn wait(&self, wanted: Wanted) -> Arc<Round> {
        let mut state = self.state();
        let round = state.next.clone();
        state.wanted.push(wanted);
        while round.verdict.get().is_none() {
            if state.led {
                state = round.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            // Nobody leads and this round has no verdict, so it is the one that has not begun.
            state.led = true;
            state.next = Arc::default();
            let wanted = std::mem::take(&mut state.wanted);
            drop(state);
            let leading = Leading { group: self, round: &round };
            round.verdict.get_or_init(|| self.perform(&wanted));
            drop(leading);
            state = self.state();
        }
        round
    }

    fn perform(&self, wanted: &[Wanted]) -> Verdict {
        let folders = wanted.iter().flat_map(|wanted| match wanted {
            Wanted::Data => [].as_slice(),
            Wanted::Names(folders) => folders,
        });
        let folders: BTreeSet<Folder> = folders.copied().collect();
        let files = wanted.iter().filter(|wanted| matches!(wanted, Wanted::Data)).count();
        if files + folders.len() >= WORTH_COVERING_ALL && self.disk.covers_all() {
            return Verdict::All(self.disk.sync_all());
        }
        let failed = |folder| self.disk.sync_folder(folder).err().map(|error| (folder, error));
        Verdict::Folders(folders.into_iter().filter_map(failed).collect())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a round, also one whose leader panicked: nobody is left waiting.
struct Leading<'a, D: Disk> {
    group: &'a Group<D>,
    round: &'a Round,
}

impl<D: Disk> Drop for Leading<'_, D> {
    fn drop(&mut self) {
        self.round.verdict.get_or_init(|| Verdict::All(Err(Errno::IO)));
        let mut state = self.group.state();
        state.led = false;
        self.round.turn.notify_all();
        state.next.turn.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{self, SyncSender};
    use std::thread;
    use std::time::Duration;

    /// A disk that syncs when it is told to, and as it is told to.
    struct Told {
        covers: bool,
        answers: Mutex<mpsc::Receiver<Result<(), Errno>>>,
        done: Mutex<Vec<Option<Folder>>>,
    }

    impl Told {
        fn sync(&self, what: Option<Folder>) -> Result<(), Errno> {
            self.done.lock().unwrap().push(what);
            self.answers.lock().unwrap().recv().unwrap()
        }
    }

    impl Disk for Told {
        fn covers_all(&self) -> bool {
            self.covers
        }
        fn sync_all(&self) -> Result<(), Errno> {
            self.sync(None)
        }
        fn sync_folder(&self, folder: Folder) -> Result<(), Errno> {
            self.sync(Some(folder))
        }
    }

    fn group(covers: bool) -> (Group<Told>, SyncSender<Result<(), Errno>>) {
        let (tell, answers) = mpsc::sync_channel(8_000);
        let told = Told { covers, answers: Mutex::new(answers), done: Mutex::default() };
        (Group::new(told), tell)
    }

    fn until(what: impl Fn() -> bool) {
        let begun = std::time::Instant::now();
        while !what() {
            assert!(begun.elapsed() < Duration::from_secs(10), "it never comes about");
            thread::sleep(Duration::from_millis(1));
        }
    }

    const FOLDERS: [Folder; 2] = [Folder::Shard(7), Folder::Staging];

    fn never() -> Result<(), Errno> {
        panic!("the round has to see to it")
    }

    #[test]
    fn a_failing_sync_fails_exactly_those_who_waited_for_it() {
        let (group, tell) = group(true);
        let (group, tell) = (&group, &tell);
        let waiting = |n| until(|| group.state().wanted.len() == n);
        thread::scope(|scope| {
            // The first leads a round of two folders.
            let first = scope.spawn(|| group.names(FOLDERS));
            until(|| group.disk.done.lock().unwrap().len() == 1);
            let second: Vec<_> = (0..5).map(|_| scope.spawn(|| group.data(never))).collect();
            waiting(5);
            tell.send(Ok(())).unwrap();
            tell.send(Ok(())).unwrap();
            assert_eq!(first.join().unwrap(), Ok(()));
            until(|| group.disk.done.lock().unwrap().len() == 3);
            let third: Vec<_> = (0..4).map(|_| scope.spawn(|| group.data(never))).collect();
            waiting(4);
            tell.send(Err(Errno::IO)).unwrap();
            tell.send(Ok(())).unwrap();
            assert!(second.into_iter().all(|one| one.join().unwrap() == Err(Errno::IO)));
            assert!(third.into_iter().all(|one| one.join().unwrap() == Ok(())));
        });
        let done = group.disk.done.lock().unwrap();
        assert_eq!(*done, [Some(Folder::Staging), Some(Folder::Shard(7)), None, None]);
    }

    #[test]
    fn folders_are_synced_once_and_files_by_their_owners_where_the_filesystem_cannot_be() {
        let (group, tell) = group(false);
        let (group, tell) = (&group, &tell);
        thread::scope(|scope| {
            let first = scope.spawn(|| group.names(FOLDERS));
            until(|| group.disk.done.lock().unwrap().len() == 1);
            let named: Vec<_> = (0..5).map(|_| scope.spawn(|| group.names(FOLDERS))).collect();
            let other = scope.spawn(|| group.names([Folder::Shard(8), Folder::Shard(8)]));
            let data = scope.spawn(|| group.data(|| Err(Errno::DQUOT)));
            until(|| group.state().wanted.len() == 7);
            for answer in [Ok(()), Ok(()), Ok(()), Err(Errno::IO), Ok(())] {
                tell.send(answer).unwrap();
            }
            assert_eq!(first.join().unwrap(), Ok(()));
            assert!(named.into_iter().all(|one| one.join().unwrap() == Err(Errno::IO)));
            assert_eq!(other.join().unwrap(), Ok(()), "a folder of its own");
            assert_eq!(data.join().unwrap(), Err(Errno::DQUOT));
        });
        assert_eq!(group.disk.done.lock().unwrap().len(), 5, "two folders, then three");
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (group, tell) = group(true);
        let (group, rounds) = (&group, 200);
        thread::scope(|scope| {
            for n in 0..8u8 {
                scope.spawn(move || {
                    for _ in 0..rounds {
                        assert_eq!(group.data(|| Ok(())), Ok(()));
                        assert_eq!(group.names([Folder::Shard(n), Folder::Staging]), Ok(()));
                    }
                });
            }
            for _ in 0..8 * rounds * 3 {
                tell.send(Ok(())).unwrap();
            }
        });
    }

    #[test]
    fn a_leader_that_panics_leaves_nobody_behind() {
        let (group, tell) = group(true);
        let group = &group;
        thread::scope(|scope| {
            let first = scope.spawn(|| group.names(FOLDERS));
            until(|| group.disk.done.lock().unwrap().len() == 1);
            let second: Vec<_> = (0..3).map(|_| scope.spawn(|| group.data(never))).collect();
            until(|| group.state().wanted.len() == 3);
            // The disk's end of the channel finds nobody: it panics.
            drop(tell);
            assert!(first.join().is_err());
            let ended: Vec<_> = second.into_iter().map(|one| one.join()).collect();
            assert_eq!(ended.iter().filter(|one| one.is_err()).count(), 1, "the second leader panicked too");
            assert_eq!(ended.iter().filter(|one| matches!(one, Ok(Err(Errno::IO)))).count(), 2);
        });
    }
}
