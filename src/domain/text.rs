//! What a reader of text would not see: one list, for every door that shows or refuses such characters.

/// Whether a reader would not see this character, or would see others moved by it.
///
/// Controls, format characters, separators that break lines, fillers and variation selectors (Unicode TR36 §2,
/// UTS 39 §3.1, and the property `Default_Ignorable_Code_Point`).
#[must_use]
pub fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || matches!(u32::from(letter),
            0x00ad | 0x034f | 0x0600..=0x0605 | 0x061c | 0x06dd | 0x070f | 0x08e2
            | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f
            | 0x2028..=0x202e | 0x2060..=0x206f | 0x2800 | 0x3164 | 0xfe00..=0xfe0f
            | 0xfeff | 0xffa0 | 0xfff0..=0xfffb | 0x110bd | 0x110cd | 0x13430..=0x1345f
            | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff)
}
