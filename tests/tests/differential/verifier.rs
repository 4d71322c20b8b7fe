//! What the program costs the verifier.

use crate::pair::Pair;
use lanrage_tests::veth::bpf_object;

/// The verifier takes the program with room to spare; both figures are printed.
#[test]
fn the_verifier_accepts_it_far_from_its_limits() {
    let mut pair = Pair::new();
    let info = pair.program.xdp().info().unwrap();
    let verified = info.verified_instruction_count().unwrap();
    let object = std::fs::read(bpf_object("lanrage-ebpf").unwrap()).unwrap();
    // functions of `.text` are called by the program and call nothing
    let (program, functions) = (stack_bytes(&object, b"xdp\0"), stack_bytes(&object, b".text\0"));
    let stack = program + functions;
    println!(
        "verified instructions: {verified} of 1000000; stack: {program} + {functions} of 512 bytes; {:?}",
        info.size_jitted()
    );
    assert!(verified <= 250_000, "{verified} instructions verified");
    assert!((1..=448).contains(&stack), "{stack} bytes of stack");
}

/// Deepest access below the frame pointer in a section of an ELF object.
fn stack_bytes(object: &[u8], name: &[u8]) -> i32 {
    let number = |at: usize, size: usize| {
        object[at..at + size].iter().rev().fold(0usize, |value, byte| value << 8 | usize::from(*byte))
    };
    let (headers, size, count, names) = (number(40, 8), number(58, 2), number(60, 2), number(62, 2));
    let header = |index: usize| headers + index * size;
    let strings = number(header(names) + 24, 8);
    let is_it = |at: &usize| object[strings + number(*at, 4)..].starts_with(name);
    let section = (0..count).map(header).find(is_it).unwrap();
    let code = &object[number(section + 24, 8)..][..number(section + 32, 8)];
    let mut depth = 0;
    let mut from_frame_pointer = [false; 16];
    for instruction in code.chunks_exact(8) {
        let (opcode, to, from) = (instruction[0], usize::from(instruction[1] & 15), instruction[1] >> 4);
        let offset = i32::from(i16::from_le_bytes([instruction[2], instruction[3]]));
        let immediate = i32::from_le_bytes([instruction[4], instruction[5], instruction[6], instruction[7]]);
        let memory = match opcode & 7 {
            1 => from == 10,
            2 | 3 => to == 10,
            _ => false,
        };
        if memory {
            depth = depth.max(-offset);
        }
        // r = r10; r += immediate
        if opcode == 0x07 && from_frame_pointer[to] {
            depth = depth.max(-immediate);
        }
        from_frame_pointer[to] = opcode == 0xbf && from == 10;
    }
    depth
}
