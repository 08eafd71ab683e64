use super::*;
use proptest::prelude::*;

/// What a guard passes on of bytes that come in pieces, read by somebody with little room; and whether it refused.
fn passed(bytes: &[u8], step: usize, room: usize) -> (Vec<u8>, Option<Refusal>, bool) {
    let mut guard = Guard::new();
    let mut passed = Vec::new();
    let mut space = vec![0; room.max(step)];
    for piece in bytes.chunks(step.min(room)) {
        let mut buffer = ReadBuf::new(&mut space);
        buffer.put_slice(piece);
        guard.judge(&mut buffer, 0);
        passed.extend_from_slice(buffer.filled());
        loop {
            let mut buffer = ReadBuf::new(&mut space[..room]);
            if !guard.pass_on(&mut buffer) {
                break;
            }
            passed.extend_from_slice(buffer.filled());
        }
    }
    let has_refused = guard.has_refused();
    (passed, guard.take_refusal(), has_refused)
}

const GOOD: [&str; 7] = [
    "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "\r\n\r\nHEAD /a?b HTTP/1.0\r\n\r\n",
    "PUT /x HTTP/1.1\r\nhost:x\r\nContent-Length: 5\r\n\r\nab\ncd",
    "PUT /x HTTP/1.1\r\nHost: x\r\nCONTENT-LENGTH:0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: x\r\ntransfer-encoding: Chunked\r\n\r\n5;a=b\r\nab\ncd\r\nA\r\n0123456789\r\n0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: x\r\nEmpty:\r\n\r\n",
];

/// Each with what is passed on of it.
const BAD: [(&str, &str); 22] = [
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", ""),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nabcde", ""),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nabcde", ""),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nabcde", ""),
    ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", ""),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", ""),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", ""),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n", ""),
    ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", ""),
    ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n", ""),
    ("GET / HTTP/1.1\nHost: x\r\n\r\n", ""),
    ("GET / HTTP/1.1\r\nHost: x\n\n", ""),
    ("GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n", ""),
    ("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", ""),
    ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", ""),
    ("GET / HTTP/1.1\r\n\r\n", ""),
    ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", ""),
    ("GET / HTTP/1.2\r\nHost: x\r\n\r\n", ""),
    ("GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", ""),
    ("nonsense\r\n\r\n", ""),
    ("\n\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", ""),
];

#[test]
fn what_means_one_thing_passes_and_what_may_mean_two_does_not() {
    for text in GOOD {
        assert_eq!(passed(text.as_bytes(), 1000, 1000), (text.as_bytes().to_vec(), None, false), "{text:?}");
    }
    for (text, before) in BAD {
        let (passed, refusal, has_refused) = passed(text.as_bytes(), 1000, 1000);
        assert!(has_refused && refusal.is_some(), "{text:?}");
        assert_eq!(passed, before.as_bytes(), "{text:?}");
    }
}

#[test]
fn a_body_that_is_badly_framed_is_broken_off_where_it_is() {
    let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (body, good) in [
        ("5\nabcde", 1),
        ("g\r\n", 0),
        ("3\r\nabcX", 6),
        ("\r\n", 0),
        ("11111111111111111\r\n", 16),
        ("0\r\n\n", 3),
    ] {
        let (passed, refusal, has_refused) = passed([head, body].concat().as_bytes(), 1000, 1000);
        assert!(has_refused && refusal.is_none(), "the answer to the request says so: {body:?}");
        assert_eq!(passed.len(), head.len() + good, "{body:?}");
    }
}

#[test]
fn heads_are_bounded() {
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(100));
    for text in [long, many] {
        assert_eq!(passed(text.as_bytes(), 3000, 3000).1, Some(Refusal::TooLarge));
    }
    let answer = String::from_utf8(Refusal::TooLarge.answer()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
}

proptest! {
    #[test]
    fn however_it_is_cut(
        requests in prop::collection::vec(prop::sample::select(GOOD.to_vec()), 1..6),
        bad in prop::option::of(prop::sample::select(BAD.to_vec())),
        step in 1usize..200,
        room in 1usize..200,
    ) {
        let good = requests.concat();
        let all = format!("{good}{}", bad.map_or("", |(text, _)| text));
        let (passed, refusal, has_refused) = passed(all.as_bytes(), step, room);
        prop_assert_eq!(String::from_utf8(passed).unwrap(), good);
        prop_assert_eq!((refusal.is_some(), has_refused), (bad.is_some(), bad.is_some()));
    }
}
