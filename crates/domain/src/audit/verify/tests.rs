use super::*;
use crate::audit::checkpoint::{Last, Signature};
use crate::audit::{Kind, Lines, Record};
use proptest::prelude::*;

/// Signs as a test does: whoever knows the message knows the signature.
fn sign(mut checkpoint: Checkpoint) -> Checkpoint {
    checkpoint.signature = mac(&checkpoint);
    checkpoint
}

fn mac(checkpoint: &Checkpoint) -> Signature {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(blake3::hash(&checkpoint.message()).as_bytes());
    Signature(bytes)
}

fn signed(checkpoint: &Checkpoint) -> Signed {
    match checkpoint.kid.as_str() {
        "k" if checkpoint.signature == mac(checkpoint) => Signed::Good,
        "k" => Signed::Bad,
        _ => Signed::Unknown,
    }
}

type Blocks = Vec<(Header, Vec<u8>)>;

#[derive(Clone)]
struct Log {
    blocks: Blocks,
    checkpoints: Vec<String>,
}

const CHAIN: ChainId = ChainId([7; 16]);

/// A log of so many blocks, with a checkpoint after every third, which the next block names.
fn log(blocks: u64) -> Log {
    let (blocks, mut files) = log_of(1, blocks);
    Log { blocks, checkpoints: files.remove(0) }
}

/// The same of nodes that take turns with checkpoints, each with a file of its own.
fn log_of(nodes: usize, blocks: u64) -> (Blocks, Vec<Vec<String>>) {
    let (mut all, mut files) = (Vec::new(), vec![Vec::new(); nodes]);
    let (mut head, mut lasts) = (Head::new(CHAIN), vec![Last::default(); nodes]);
    let mut mention = None;
    for number in 1..=blocks {
        let at = Timestamp::from_millis(1_700_000_000_000 + number as i64);
        let mut lines = Lines::default();
        for record in 0..=number % 3 {
            let mut said = Record::new(Kind::End, at, "file.read");
            said.count = Some(record);
            lines.push(&said);
        }
        if let Some((count, version)) = mention.take() {
            let version: String = version;
            let mut note = Record::new(Kind::Note, at, CHECKPOINT);
            (note.count, note.version) = (Some(count), Some(version.as_str()));
            lines.push(&note);
        }
        let header = head.next(Hash::of(&lines.text), lines.count, at);
        head = header.head();
        all.push((header, lines.text));
        if number % 3 == 0 {
            let node = (number / 3) as usize % nodes;
            let checkpoint = sign(Checkpoint::after(&lasts[node], &head, false, at, "k".to_owned()));
            lasts[node] = checkpoint.last();
            mention = Some((lasts[node].checkpoint, lasts[node].line.to_string()));
            files[node].push(checkpoint.line());
        }
    }
    (all, files)
}

#[test]
fn nodes_have_a_file_each() {
    let (blocks, files) = log_of(2, 20);
    let found = |files: &[Vec<String>]| {
        let mut verifier = Verifier::new(files.iter().map(|file| file.iter().map(String::as_str)), signed);
        for (header, text) in &blocks {
            verifier.block(header, text);
        }
        verifier.finish().findings
    };
    assert_eq!(found(&files), []);
    let [one, two] = &files[..] else { unreachable!() };
    assert_eq!(found(&[two.clone(), one.clone()]), [], "whichever comes first");
    assert_eq!(
        found(std::slice::from_ref(one)),
        [1, 2, 3].map(Finding::CheckpointLost),
        "those of the other are missed"
    );
    let cut = [one[1..].to_vec(), two.clone()];
    assert!(found(&cut).contains(&Finding::CheckpointLost(1)));
    let cut = [one.clone(), two[..2].to_vec()];
    assert_eq!(found(&cut), [Finding::CheckpointLost(3)]);
}

fn verify(log: &Log) -> Report {
    let mut verifier = Verifier::new([log.checkpoints.iter().map(String::as_str)], signed);
    for (header, text) in &log.blocks {
        verifier.block(header, text);
    }
    verifier.finish()
}

fn findings(log: &Log) -> Vec<Finding> {
    verify(log).findings
}

#[test]
fn a_whole_log_is_whole() {
    let report = verify(&log(10));
    assert_eq!(report.findings, []);
    assert_eq!((report.blocks, report.checkpoints, report.vouched), (Some((1, 10)), 3, 9));
    assert_eq!(report.records, log(10).blocks.iter().map(|(header, _)| header.records).sum::<u64>());
    assert_eq!(findings(&log(0)), []);
}

#[test]
fn a_log_that_was_cut_is_found_by_its_checkpoints() {
    for last in 0..9 {
        let mut cut = log(10);
        cut.blocks.truncate(last);
        assert_eq!(findings(&cut), [Finding::Cut { checkpoint: 3, block: 9, last: last as u64 }]);
    }
    let mut cut = log(10);
    cut.blocks.truncate(9);
    assert_eq!(findings(&cut), [], "nothing vouches for what is younger than the last checkpoint");
    let mut both = log(10);
    both.blocks.truncate(9);
    both.checkpoints.truncate(2);
    assert_eq!(findings(&both), [], "and nothing when both are cut at the same place");
}

#[test]
fn checkpoints_that_are_gone_are_missed() {
    let mut cut = log(10);
    cut.checkpoints.truncate(2);
    assert_eq!(findings(&cut), [Finding::CheckpointLost(3)]);
    let mut none = log(10);
    none.checkpoints.clear();
    assert_eq!(findings(&none), [1, 2, 3].map(Finding::CheckpointLost));
    let mut middle = log(10);
    middle.checkpoints.remove(1);
    assert_eq!(findings(&middle), [Finding::CheckpointMisplaced(3), Finding::CheckpointLost(2)]);
    let mut first = log(10);
    first.checkpoints.remove(0);
    assert!(findings(&first).contains(&Finding::CheckpointLost(1)));
    let mut torn = log(10);
    torn.checkpoints.insert(1, "{\"checkpoint\":2,\"at".to_owned());
    assert_eq!(findings(&torn), [], "what a crash leaves of a line is no fault");
}

#[test]
fn a_log_made_anew_from_some_block_on_contradicts_its_checkpoints() {
    let mut other = log(10);
    let mut head = other.blocks[3].0.head();
    for (header, text) in &mut other.blocks[4..] {
        let made = text.repeat(2);
        *header = head.next(Hash::of(&made), header.records * 2, header.at);
        (head, *text) = (header.head(), made);
    }
    let found = findings(&other);
    assert!(found.contains(&Finding::Contradicted { checkpoint: 2, block: 6 }), "{found:?}");
}

#[test]
fn old_blocks_go_only_with_a_signed_statement() {
    let whole = log(10);
    let mut younger = whole.clone();
    younger.blocks.drain(..4);
    assert_eq!(findings(&younger), [Finding::NoBeginning(5)]);
    let last = Checkpoint::parse(whole.checkpoints.last().unwrap()).unwrap().last();
    let at = Timestamp::from_millis(0);
    let start =
        |block: usize| Checkpoint::after(&last, &whole.blocks[block - 1].0.head(), true, at, "k".into());
    younger.checkpoints.push(sign(start(4)).line());
    assert_eq!(findings(&younger), []);
    younger.checkpoints.pop();
    younger.checkpoints.push(start(4).line());
    assert_eq!(findings(&younger), [Finding::BadSignature(4), Finding::NoBeginning(5)]);
    younger.checkpoints.pop();
    younger.checkpoints.push(sign(start(3)).line());
    assert_eq!(findings(&younger), [Finding::NoBeginning(5)], "of another block");
    let unsigned = Checkpoint { kid: "gone".to_owned(), ..start(4) };
    younger.checkpoints.pop();
    younger.checkpoints.push(unsigned.line());
    let unknown = Finding::UnknownKey { checkpoint: 4, kid: "gone".to_owned() };
    assert_eq!(findings(&younger), [unknown, Finding::NoBeginning(5)]);
}

#[test]
fn the_hash_is_as_documented() {
    let (header, _) = &log(1).blocks[0];
    let text = format!(
        "carrack/audit/block/v1\n{}\n1\n{}\n2023-11-14T22:13:20.001Z\n2\n{}\n",
        "07".repeat(16),
        "00".repeat(32),
        header.content
    );
    assert_eq!(header.hash, Hash::of(text.as_bytes()));
    assert_eq!(Header::parse(header.line().trim_end().as_bytes()).as_ref(), Some(header));
}

proptest! {
    #[test]
    fn any_byte_of_any_line_changed_is_found(block in 0..10_usize, at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut log = log(10);
        let text = &mut log.blocks[block].1;
        let at = at.index(text.len());
        text[at] ^= 1_u8 << bit;
        prop_assert!(findings(&log).contains(&Finding::Altered(block as u64 + 1)));
    }

    #[test]
    fn any_line_dropped_doubled_or_swapped_is_found(block in 0..10_usize, how in 0..3) {
        let mut log = log(10);
        let text = &mut log.blocks[block].1;
        let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let before = lines.clone();
        match how {
            0 => drop(lines.remove(0)),
            1 => lines.insert(0, lines[0]),
            _ => lines.reverse(),
        }
        prop_assume!(lines != before);
        *text = lines.concat();
        prop_assert!(findings(&log).contains(&Finding::Altered(block as u64 + 1)));
    }

    #[test]
    fn any_block_dropped_doubled_or_swapped_is_found(block in 0..9_usize, how in 0..3) {
        let mut log = log(10);
        match how {
            0 => drop(log.blocks.remove(block)),
            1 => log.blocks.insert(block, log.blocks[block].clone()),
            _ => log.blocks.swap(block, block + 1),
        }
        prop_assert!(!findings(&log).is_empty());
    }

    #[test]
    fn any_part_of_a_header_changed_is_found(block in 0..10_usize, field in 0..7, bit in 0..8_u8) {
        let mut log = log(10);
        let header = &mut log.blocks[block].0;
        match field {
            0 => header.block ^= 1_u64 << bit,
            1 => header.chain.0[3] ^= 1_u8 << bit,
            2 => header.prev.0[5] ^= 1_u8 << bit,
            3 => header.at = Timestamp::from_millis(header.at.as_millis() ^ (1_i64 << bit)),
            4 => header.records ^= 1_u64 << bit,
            5 => header.content.0[7] ^= 1_u8 << bit,
            _ => header.hash.0[9] ^= 1_u8 << bit,
        }
        prop_assert!(!findings(&log).is_empty());
    }

    #[test]
    fn any_byte_of_any_checkpoint_changed_is_found(line in 0..3_usize, at in any::<prop::sample::Index>(), bit in 0..7_u8) {
        let mut log = log(10);
        let mut bytes = log.checkpoints[line].clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        log.checkpoints[line] = String::from_utf8(bytes).unwrap();
        prop_assert!(!findings(&log).is_empty());
    }
}
