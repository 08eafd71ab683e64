//! A TCP proxy before an engine, which can be told to fail as networks and machines do.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// How late every byte of an answer is in [`Mode::Late`].
const LATE: Duration = Duration::from_secs(5);
/// Connections at once, beyond which nobody is let in.
const CONNECTIONS_MAX: usize = 256;
/// Bytes that are read at once, and how many such pieces one direction of a connection holds.
const PIECE: usize = 64 << 10;
const PIECES_MAX: usize = 64;

/// How the proxy fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Not at all.
    Pass,
    /// Nobody listens; what was connected is closed.
    Refuse,
    /// Everybody is let in, nobody is answered. What was connected stays silent for good, also after healing.
    Hang,
    /// Every byte of an answer comes five seconds late.
    Late,
    /// A connection is reset once it has carried so many bytes of either direction.
    Reset(usize),
}

/// Passes on to an engine until it is dropped.
pub(super) struct Proxy {
    port: u16,
    mode: watch::Sender<Mode>,
    _listens: JoinSet<()>,
}

impl Proxy {
    /// Before the engine on this port of this machine.
    pub(super) async fn start(upstream: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mode, told) = watch::channel(Mode::Pass);
        let mut listens = JoinSet::new();
        listens.spawn(listen(listener, port, upstream, told));
        Proxy { port, mode, _listens: listens }
    }

    /// What it listens on.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// From now on it does this, also with what is connected.
    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn listen(first: TcpListener, port: u16, upstream: u16, mut mode: watch::Receiver<Mode>) {
    let (mut listener, mut connections) = (Some(first), JoinSet::new());
    loop {
        if *mode.borrow_and_update() == Mode::Refuse {
            listener = None;
            connections.shutdown().await;
            if mode.changed().await.is_err() {
                return;
            }
            continue;
        }
        let open = match listener.take() {
            Some(open) => open,
            None => again(port).await,
        };
        tokio::select! {
            near = open.accept() => if connections.len() < CONNECTIONS_MAX {
                connections.spawn(carry(near.unwrap().0, upstream, mode.clone()));
            },
            changed = mode.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next() => {}
        }
        listener = Some(open);
    }
}

/// Listens on the port again, which somebody may have taken for a moment.
async fn again(port: u16) -> TcpListener {
    let begun = Instant::now();
    loop {
        match TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => return listener,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(8), "port {port}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How a connection came to its end.
enum End {
    /// By one of its sides.
    Closed,
    Reset,
    /// It is there, and carries nothing any more.
    Silent,
}

/// One connection, to its end.
async fn carry(near: TcpStream, upstream: u16, mut mode: watch::Receiver<Mode>) {
    if *mode.borrow_and_update() == Mode::Hang {
        return silent(&near).await;
    }
    let Ok(far) = TcpStream::connect(("127.0.0.1", upstream)).await else { return };
    // As the kernel of either side would send what it is given.
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    let carried = watch::Sender::new(0);
    let now = mode.clone();
    let end = tokio::select! {
        _ = pass(&near, &far, &now, false, &carried) => End::Closed,
        _ = pass(&far, &near, &now, true, &carried) => End::Closed,
        end = fails(&mut mode, &carried) => end,
    };
    match end {
        End::Closed => {}
        End::Reset => near.set_zero_linger().unwrap(),
        // The engine is not told either that nobody listens to it any more.
        End::Silent => silent(&near).await,
    }
}

/// Waits until the mode says that the connection is over.
async fn fails(mode: &mut watch::Receiver<Mode>, carried: &watch::Sender<usize>) -> End {
    loop {
        let now = *mode.borrow_and_update();
        match now {
            Mode::Hang => return End::Silent,
            Mode::Reset(after) => {
                let most = *carried.borrow() + after;
                let mut counted = carried.subscribe();
                tokio::select! {
                    _ = counted.wait_for(|carried| *carried >= most) => return End::Reset,
                    changed = mode.changed() => if changed.is_err() { return End::Closed },
                }
            }
            Mode::Pass | Mode::Refuse | Mode::Late => {
                if mode.changed().await.is_err() {
                    return End::Closed;
                }
            }
        }
    }
}

/// One direction, until its source ends.
async fn pass(
    from: &TcpStream,
    to: &TcpStream,
    mode: &watch::Receiver<Mode>,
    is_answer: bool,
    carried: &watch::Sender<usize>,
) -> io::Result<()> {
    let mut pieces: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut ended = false;
    while !ended || !pieces.is_empty() {
        let due = pieces.front().map_or_else(Instant::now, |(due, _)| *due);
        tokio::select! {
            () = sleep_until(due), if !pieces.is_empty() => if let Some((_, piece)) = pieces.pop_front() {
                send(to, &piece).await?;
            },
            piece = receive(from), if !ended && pieces.len() < PIECES_MAX => {
                let piece = piece?;
                ended = piece.is_empty();
                carried.send_modify(|carried| *carried += piece.len());
                let late = is_answer && *mode.borrow() == Mode::Late;
                pieces.push_back((Instant::now() + if late { LATE } else { Duration::ZERO }, piece));
            }
        }
    }
    Ok(())
}

/// What has come; nothing at the end.
async fn receive(from: &TcpStream) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; PIECE];
    loop {
        from.readable().await?;
        match from.try_read(&mut piece) {
            Ok(count) => {
                piece.truncate(count);
                return Ok(piece);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn send(to: &TcpStream, mut piece: &[u8]) -> io::Result<()> {
    while !piece.is_empty() {
        to.writable().await?;
        match to.try_write(piece) {
            Ok(count) => piece = &piece[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Takes what comes and says nothing, until the other side gives up.
async fn silent(near: &TcpStream) {
    while receive(near).await.is_ok_and(|piece| !piece.is_empty()) {}
}
