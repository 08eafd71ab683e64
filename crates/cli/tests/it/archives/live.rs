//! Progress as it happens, by server-sent events and by WebSocket.

use super::{act, below, look, made, path, put, setup, text, until};
use crate::access::make_token;
use crate::server::{Server, TOKEN, content};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

async fn load(server: &Server, files: u64) {
    for number in 0..files {
        put(server, &format!("w/{number}"), text(8 << 20, number)).await;
    }
}

#[derive(Debug)]
struct Event {
    name: String,
    id: String,
    data: Value,
    at: Instant,
}

/// All events until the stream ends.
async fn events(server: &Server, archive: &Value, last: Option<&str>) -> Vec<Event> {
    let mut request = server.get(&format!("{}/events", path(archive)));
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (mut events, mut buffer) = (Vec::new(), String::new());
    let mut stream = response.bytes_stream();
    while let Some(bytes) = stream.next().await {
        buffer.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
        while let Some((event, rest)) = buffer.split_once("\n\n") {
            let field = |name: &str| {
                event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
            };
            if let (Some(name), Some(id), Some(data)) = (field("event"), field("id"), field("data")) {
                let data = serde_json::from_str(&data).unwrap();
                events.push(Event { name, id, data, at: Instant::now() });
            }
            buffer = rest.to_owned();
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_begin_with_how_it_is_and_end_with_the_last_state() {
    let server = setup().start();
    load(&server, 10).await;
    let archive = made(&server, &below("w/", "deflate")).await;
    let seen = events(&server, &archive, None).await;
    assert!(seen.len() >= 3, "{seen:?}");
    assert_eq!(seen[0].name, "progress");
    assert_eq!(seen[1].name, "state");
    let states: Vec<&str> =
        seen.iter().filter(|e| e.name == "state").map(|e| e.data["state"].as_str().unwrap()).collect();
    assert_eq!(states.last(), Some(&"completed"));
    let done: Vec<u64> = seen
        .iter()
        .filter(|e| e.name == "progress")
        .map(|e| e.data["bytes_done"].as_u64().unwrap())
        .collect();
    assert!(done.is_sorted() && *done.last().unwrap() == 10 * (8 << 20), "{done:?}");
    let moments: Vec<Instant> = seen.iter().filter(|e| e.name == "progress").map(|e| e.at).collect();
    if let (Some(first), Some(last)) = (moments.first(), moments.last()) {
        let most = last.duration_since(*first).as_millis() / 250 + 3;
        assert!(moments.len() as u128 <= most, "{} in {:?}", moments.len(), last.duration_since(*first));
    }
    // Whoever has seen the end is told nothing twice; whoever has not hears how it ended.
    let last = seen.last().unwrap();
    assert_eq!(last.data, look(&server, &archive).await);
    assert!(events(&server, &archive, Some(&last.id)).await.is_empty());
    let late = events(&server, &archive, Some("running-0-0")).await;
    assert_eq!(late.last().unwrap().data["state"], "completed");
}

type Socket = WebSocketStream<TcpStream>;

async fn connect(server: &Server) -> Socket {
    connect_as(server, TOKEN).await
}

async fn connect_as(server: &Server, token: &str) -> Socket {
    let mut request = format!("ws://{}/v1/ws", server.address()).into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let stream = TcpStream::connect(server.address()).await.unwrap();
    tokio_tungstenite::client_async(request, stream).await.unwrap().0
}

async fn say(socket: &mut Socket, what: Value) {
    socket.send(Message::text(what.to_string())).await.unwrap();
}

/// The next message that is no ping.
async fn hear(socket: &mut Socket) -> Value {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(60), socket.next()).await.unwrap();
        if let Message::Text(text) = message.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_socket_tells_of_archives() {
    let server = setup().start();
    load(&server, 6).await;
    let mut socket = connect(&server).await;
    let archive = made(&server, &below("w/", "deflate")).await;
    let topic = format!("archive:{}", archive["id"].as_str().unwrap());
    say(&mut socket, json!({"subscribe": [topic, "archive:none", "weather"]})).await;
    let (mut errors, mut last) = (0, Value::Null);
    while last != "completed" {
        let told = hear(&mut socket).await;
        match told["event"].as_str().unwrap() {
            "error" => errors += 1,
            "state" => last = told["data"]["state"].clone(),
            event => assert_eq!((event, &told["topic"]), ("progress", &json!(topic))),
        }
    }
    assert_eq!(errors, 2, "unknown topics are told so");
    say(&mut socket, json!({"nonsense": 1})).await;
    assert_eq!(hear(&mut socket).await["event"], "error");
    say(&mut socket, json!({"subscribe": [topic]})).await;
    assert_eq!(hear(&mut socket).await["event"], "progress", "the present state of what is over");
    assert_eq!(hear(&mut socket).await["data"]["state"], "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_socket_tells_of_uploads() {
    let server = setup().start();
    let wish = json!({"bucket": "default", "key": "k", "size": 2 << 20, "part_size": 1 << 20});
    let mut socket = connect(&server).await;
    say(&mut socket, json!({"subscribe": ["transfers"]})).await;
    assert_eq!(hear(&mut socket).await["data"], json!({"uploads": [], "downloads": []}));
    let upload: Value = server.post("/v1/uploads").json(&wish).send().await.unwrap().json().await.unwrap();
    let id = upload["upload_id"].as_str().unwrap();
    let topic = format!("upload:{id}");
    say(&mut socket, json!({"subscribe": [topic], "unsubscribe": ["transfers"]})).await;
    assert_eq!(hear(&mut socket).await["data"]["received_bytes"], 0);
    for number in 1..=2 {
        let part = server.put(&format!("/v1/uploads/{id}/parts/{number}")).body(vec![0; 1 << 20]);
        assert_eq!(part.send().await.unwrap().status(), 200);
    }
    let mut received = 0;
    while received < 2 << 20 {
        let told = hear(&mut socket).await;
        assert_eq!((&told["topic"], &told["event"]), (&json!(topic), &json!("upload")));
        received = told["data"]["received_bytes"].as_u64().unwrap();
    }
    let done = server.post(&format!("/v1/uploads/{id}/complete")).send().await.unwrap();
    assert_eq!(done.status(), 201);
    let told = hear(&mut socket).await;
    assert_eq!(told["data"]["state"], "complete");
}

/// The downloads that the next message tells of.
async fn downloads(socket: &mut Socket) -> Vec<Value> {
    let told = hear(socket).await;
    assert_eq!((&told["topic"], &told["event"]), (&json!("transfers"), &json!("transfers")));
    told["data"]["downloads"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_socket_tells_of_downloads_to_whom_they_belong() {
    const BYTES: u64 = 48 << 20;
    let server = setup().start();
    put(&server, "large", vec![7; BYTES as usize]).await;
    put(&server, "small", vec![7; 1000]).await;
    let alice = make_token(&server, json!({"subject": "alice", "role": "user"})).await.0;
    let bob = make_token(&server, json!({"subject": "bob", "role": "user"})).await.0;
    let mut sockets = Vec::new();
    for token in [alice.as_str(), &bob, TOKEN] {
        let mut socket = connect_as(&server, token).await;
        say(&mut socket, json!({"subscribe": ["transfers"]})).await;
        assert_eq!(downloads(&mut socket).await, Vec::<Value>::new());
        sockets.push(socket);
    }
    let get = |path: &str| {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(server.url(path)).bearer_auth(&alice).send()
    };
    get("/v1/files/default/small").await.unwrap().bytes().await.unwrap();
    let mut answer = get("/v1/files/default/large").await.unwrap();
    let mut seen: Vec<(Instant, Value)> = Vec::new();
    // Read slowly, so that there is something to see.
    for socket in [0, 2] {
        let told = downloads(&mut sockets[socket]).await;
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((&told[0]["name"], &told[0]["state"]), (&json!("default/large"), &json!("running")));
        assert_eq!((&told[0]["size"], &told[0]["owner"]), (&json!(BYTES), &json!("alice")));
    }
    let mut received = 0;
    let reading = async {
        while let Some(bytes) = answer.chunk().await.unwrap() {
            received += bytes.len() as u64;
            if received % (4 << 20) < bytes.len() as u64 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    let watching = async {
        loop {
            let told = downloads(&mut sockets[0]).await;
            seen.push((Instant::now(), told[0].clone()));
            if told[0]["state"] != "running" {
                break;
            }
        }
    };
    tokio::join!(reading, watching);
    assert_eq!(received, BYTES);
    let last = &seen.last().unwrap().1;
    assert_eq!((&last["state"], &last["sent"]), (&json!("completed"), &json!(BYTES)));
    let sent: Vec<u64> = seen.iter().map(|(_, one)| one["sent"].as_u64().unwrap()).collect();
    assert!(sent.is_sorted() && sent.len() >= 2, "{sent:?}");
    let span = seen.last().unwrap().0 - seen[0].0;
    assert!(seen.len() as u128 <= span.as_millis() / 250 + 3, "{} in {span:?}", seen.len());
    while !downloads(&mut sockets[0]).await.is_empty() {}
    // Of all this bob has heard nothing: the next that he hears is of his own.
    let aborted = reqwest::Client::builder().no_proxy().build().unwrap();
    let aborted = aborted.get(server.url("/v1/files/default/large")).bearer_auth(&bob).send().await.unwrap();
    assert_eq!(downloads(&mut sockets[1]).await[0]["owner"], "bob");
    drop(aborted);
    loop {
        let told = downloads(&mut sockets[1]).await;
        assert_eq!(told[0]["owner"], "bob");
        if told[0]["state"] != "running" {
            assert_eq!(told[0]["state"], "aborted");
            break;
        }
    }
}

/// An archive that is made as it is sent is shown without a size, for there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_archive_is_shown_while_it_goes() {
    let server = setup().set("CARRACK_LIMITS__BANDWIDTH_PER_CONNECTION", "2MB").start();
    put(&server, "w/noise", content(4 << 20, 1)).await;
    let mut socket = connect(&server).await;
    say(&mut socket, json!({"subscribe": ["transfers"]})).await;
    assert!(downloads(&mut socket).await.is_empty());
    let answer = server.get("/v1/zip/default?prefix=w/&compression=deflate&name=all").send().await.unwrap();
    let told = downloads(&mut socket).await;
    assert_eq!((&told[0]["name"], &told[0]["kind"]), (&json!("all.zip"), &json!("zip")));
    assert_eq!((told[0].get("size"), &told[0]["state"]), (None, &json!("running")));
    let zip = answer.bytes().await.unwrap();
    loop {
        let told = downloads(&mut socket).await;
        if told[0]["state"] == "completed" {
            assert_eq!(told[0]["sent"], json!(zip.len()));
            break;
        }
        assert_eq!(told[0]["state"], "running");
    }
}

/// Credentials are looked at every second; the rest is for a busy machine, and less than any other end takes.
const SOON_CLOSED: Duration = Duration::from_secs(10);

/// What ends a connection, and how long that took.
async fn ended(socket: &mut Socket) -> (Option<u16>, Duration) {
    let begun = Instant::now();
    loop {
        let message = tokio::time::timeout(Duration::from_secs(60), socket.next()).await.unwrap();
        match message {
            Some(Ok(Message::Close(frame))) => {
                return (frame.map(|frame| frame.code.into()), begun.elapsed());
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return (None, begun.elapsed()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_credentials_end_watches_no_more() {
    let server = setup().start();
    load(&server, 1).await;
    let (alice, id) = make_token(&server, json!({"subject": "alice", "role": "user"})).await;
    let brief = make_token(&server, json!({"subject": "bob", "role": "user", "expires_in": 2})).await.0;
    let mut socket = connect_as(&server, &alice).await;
    say(&mut socket, json!({"subscribe": ["transfers"]})).await;
    hear(&mut socket).await;
    let mut expiring = connect_as(&server, &brief).await;
    let mut other = connect(&server).await;
    let wish = below("w/", "store");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let asked = client.post(server.url("/v1/archives")).bearer_auth(&alice).json(&wish).send().await.unwrap();
    assert_eq!(asked.status(), 201);
    // A job that rests, so that its events do not end by themselves.
    let wish = below("w/", "deflate");
    let asked = client.post(server.url("/v1/archives")).bearer_auth(&alice).json(&wish).send().await.unwrap();
    let archive: Value = asked.json().await.unwrap();
    let paused = client.post(server.url(&format!("{}/pause", path(&archive)))).bearer_auth(&alice).send();
    let paused = paused.await.unwrap().status() == 200;
    let events = client.get(server.url(&format!("{}/events", path(&archive)))).bearer_auth(&alice).send();
    let events = events.await.unwrap();
    assert_eq!(server.delete(&format!("/v1/tokens/{id}")).send().await.unwrap().status(), 204);
    let (code, took) = ended(&mut socket).await;
    assert_eq!(code, Some(1008));
    assert!(took < SOON_CLOSED, "{took:?}");
    let begun = Instant::now();
    events.bytes().await.unwrap();
    assert!(!paused || begun.elapsed() < SOON_CLOSED, "{:?}", begun.elapsed());
    assert_eq!(ended(&mut expiring).await.0, Some(1008));
    say(&mut other, json!({"subscribe": ["transfers"]})).await;
    assert_eq!(hear(&mut other).await["event"], "transfers", "others go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_web_socket_is_refused() {
    let server = setup().start();
    let plain = server.get("/v1/ws").send().await.unwrap();
    assert_eq!(plain.status(), 400);
    let nobody = reqwest::get(server.url("/v1/ws")).await.unwrap();
    assert_eq!(nobody.status(), 401);
}

/// Watchers do not keep a server from stopping.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_end_with_the_server() {
    let mut server = setup().start();
    load(&server, 1).await;
    let archive = made(&server, &below("w/", "deflate")).await;
    act(&server, &archive, "pause").await;
    let paused = look(&server, &archive).await;
    let mut socket = connect(&server).await;
    if paused["state"] == "paused" {
        let topic = format!("archive:{}", archive["id"].as_str().unwrap());
        say(&mut socket, json!({"subscribe": [topic]})).await;
        hear(&mut socket).await;
    }
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let server = setup().data(&server.data).start();
    if paused["state"] == "paused" {
        act(&server, &archive, "resume").await;
    }
    until(&server, &archive, "completed").await;
}
