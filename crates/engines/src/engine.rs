//! A program that serves others.

use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often a program that is starting is asked whether it is ready.
const POLL: Duration = Duration::from_millis(25);
/// How long one has to end by itself before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the program until it ends or the pipe on standard input does, which happens however its owner goes. Both are one
/// process group.
const KEEPER: &str = r#"exec 3<&0 </dev/null
trap : TERM
"$@" 3<&- &
program=$!
( trap '' TERM; cat <&3 >/dev/null; kill -KILL 0 ) &
wait "$program"; status=$?
while kill -0 "$program" 2>/dev/null; do wait "$program"; status=$?; done
exit "$status""#;

/// Why an engine is not there.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nobody installed it.
    #[error("{program} is not installed: {remedy}")]
    Missing {
        /// What was looked for.
        program: String,
        /// The command that installs it.
        remedy: String,
    },
    /// It did not start, or ended at once.
    #[error("{name} did not become ready: {cause}; see {log}")]
    Failed {
        /// Which.
        name: &'static str,
        /// What was seen.
        cause: String,
        /// Where its own words are.
        log: PathBuf,
    },
    /// The machine refused something.
    #[error("{name}: {source}")]
    Io {
        /// For which engine.
        name: &'static str,
        /// What it said.
        source: io::Error,
    },
}

/// How to start a program, again and again.
pub struct Spec {
    /// What it is called in messages.
    pub name: &'static str,
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// Variables it gets besides ours.
    pub variables: Vec<(OsString, OsString)>,
    /// Its folder, which it starts in. `NAME.log` in it takes what it says.
    pub folder: PathBuf,
    /// Whether it serves by now; what is wrong otherwise.
    pub ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// How long it may take to get there.
    pub patience: Duration,
}

/// A running program. Killed and waited for when dropped; killed too when its owner ends in any other way.
pub struct Engine {
    spec: Spec,
    keeper: Option<Child>,
}

impl Engine {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// It ended, or was not ready in time.
    pub fn start(spec: Spec) -> Result<Self, EngineError> {
        let mut engine = Self { spec, keeper: None };
        engine.start_again()?;
        Ok(engine)
    }

    /// Starts it after it was stopped or killed, in the same folder and on the same port.
    ///
    /// # Errors
    /// As of [`Engine::start`].
    pub fn start_again(&mut self) -> Result<(), EngineError> {
        self.kill();
        let io = |source| EngineError::Io { name: self.spec.name, source };
        let log = File::options().create(true).append(true).open(self.log()).map_err(io)?;
        let keeper = Command::new("/bin/sh")
            .args(["-c", KEEPER, "sh"])
            .args(&self.spec.command)
            .envs(self.spec.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.spec.folder)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(io)?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(io)?;
        self.keeper = Some(keeper);
        let begin = Instant::now();
        loop {
            let Err(cause) = (self.spec.ready)() else { return Ok(()) };
            let ended = self.keeper.as_mut().and_then(|keeper| keeper.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(self.failed(format!("it ended with {status}")));
            }
            if begin.elapsed() > self.spec.patience {
                let cause = format!("not within {:?}: {cause}", self.spec.patience);
                self.kill();
                return Err(self.failed(cause));
            }
            sleep(POLL);
        }
    }

    /// Asks it to end, waits until it has, and kills it when it takes more than ten seconds.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let begin = Instant::now();
        while let Some(keeper) = self.keeper.as_mut() {
            match keeper.try_wait() {
                Ok(None) if begin.elapsed() < STOP_PATIENCE => sleep(POLL),
                _ => break,
            }
        }
        self.kill();
    }

    /// Ends it at once, as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Some(mut keeper) = self.keeper.take() {
            // It was killed: there is nothing it could still tell.
            let _gone = keeper.wait();
        }
    }

    /// Freezes it: connections stay, nothing answers.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// The number of its process group, which `kill -9 -- -NUMBER` ends; `None` when it does not run.
    pub fn group(&self) -> Option<u32> {
        self.keeper.as_ref().map(Child::id)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.spec.folder
    }

    /// Where its own words are.
    pub fn log(&self) -> PathBuf {
        self.spec.folder.join(format!("{}.log", self.spec.name))
    }

    fn signal(&self, signal: Signal) {
        let group = self.keeper.as_ref().and_then(|keeper| Pid::from_raw(keeper.id().cast_signed()));
        if let Some(group) = group {
            // A group that has ended by itself needs no signal any more.
            let _ended = kill_process_group(group, signal);
        }
    }

    fn failed(&self, cause: String) -> EngineError {
        EngineError::Failed { name: self.spec.name, cause, log: self.log() }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A loopback port that nobody listens on now. Whoever takes it at the same time is found out when the engine starts.
///
/// # Errors
/// No port is left.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The path of an installed program: looked for on the `PATH`, then in `folders`.
///
/// # Errors
/// It is not there; `remedy` is the command that installs it.
pub fn program(name: &str, folders: &[&str], remedy: &str) -> Result<PathBuf, EngineError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(folders.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| EngineError::Missing { program: name.to_owned(), remedy: remedy.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(folder: &Path, script: &str) -> Spec {
        let marker = folder.join("ready");
        Spec {
            name: "script",
            command: ["/bin/sh", "-c", script].map(OsString::from).to_vec(),
            variables: Vec::new(),
            folder: folder.to_owned(),
            ready: Box::new(move || marker.exists().then_some(()).ok_or_else(|| "no marker".to_owned())),
            patience: Duration::from_secs(10),
        }
    }

    /// Until the process of this number is gone, or a zombie that its new parent has not looked at.
    fn wait_gone(pid: &str) {
        let begin = Instant::now();
        let alive =
            || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while alive() {
            assert!(begin.elapsed() < Duration::from_secs(10), "{pid} is still there");
            sleep(POLL);
        }
    }

    #[test]
    fn it_is_ready_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let engine =
            Engine::start(spec(folder.path(), "echo $$ > pid; touch ready; exec sleep 600")).unwrap();
        let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
        assert!(Path::new(&format!("/proc/{}", pid.trim())).exists());
        drop(engine);
        wait_gone(pid.trim());
    }

    #[test]
    fn it_goes_when_its_owner_is_killed_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut engine =
            Engine::start(spec(folder.path(), "echo $$ > pid; touch ready; exec sleep 600")).unwrap();
        let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
        // What the end of the process does to the pipe.
        drop(engine.keeper.as_mut().unwrap().stdin.take());
        wait_gone(pid.trim());
    }

    #[test]
    fn one_that_ends_is_told_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let error = Engine::start(spec(folder.path(), "echo port taken >&2; exit 3")).err().unwrap();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        let log = std::fs::read_to_string(folder.path().join("script.log")).unwrap();
        assert_eq!(log, "port taken\n");
    }

    #[test]
    fn it_stops_and_starts_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut engine =
            Engine::start(spec(folder.path(), "echo x >> starts; touch ready; exec sleep 600")).unwrap();
        engine.stop();
        std::fs::remove_file(folder.path().join("ready")).unwrap();
        engine.start_again().unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("starts")).unwrap(), "x\nx\n");
    }

    #[test]
    fn one_that_is_asked_to_end_may_finish_what_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let script = "trap 'sleep 0.2; touch done; exit 0' TERM; touch ready; while :; do sleep 0.05; done";
        let mut engine = Engine::start(spec(folder.path(), script)).unwrap();
        engine.stop();
        assert!(folder.path().join("done").exists());
    }

    #[test]
    fn a_missing_program_comes_with_its_remedy() {
        let error = program("no-such-engine", &[], "apt-get install it").err().unwrap();
        assert!(error.to_string().contains("apt-get install it"), "{error}");
    }
}
