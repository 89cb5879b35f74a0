//! What changed between two texts, line by line.
//!
//! Owns the longest common subsequence (the table method, Wagner and Fischer 1974) and the form of
//! `diff -u` without line numbers. Never knows what the texts are.

/// Unchanged lines shown around a change.
const CONTEXT: usize = 2;

/// The largest table (lines × lines). Beyond it the middle of the texts is shown as replaced:
/// right, only longer than needed.
const CELLS_MAX: usize = 4 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// The changed lines with `+ ` and `- ` before them, some unchanged ones with two spaces, and `...`
/// where lines are left out. Empty when the texts are the same.
pub(crate) fn changed_lines(before: &str, after: &str) -> Vec<String> {
    if before == after {
        return Vec::new();
    }
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let lines = compare(&old, &new);
    let shown = near_changes(&lines);
    let mut rendered = Vec::new();
    let mut gap = false;
    for (line, shown) in lines.iter().zip(shown) {
        if !shown {
            gap = true;
            continue;
        }
        if std::mem::take(&mut gap) {
            rendered.push("...".to_owned());
        }
        rendered.push(match line {
            Line::Same(text) => format!("  {text}"),
            Line::Gone(text) => format!("- {text}"),
            Line::New(text) => format!("+ {text}"),
        });
    }
    rendered
}

fn near_changes(lines: &[Line<'_>]) -> Vec<bool> {
    let mut shown = vec![false; lines.len()];
    for at in (0..lines.len()).filter(|at| !matches!(lines[*at], Line::Same(_))) {
        let until = (at + CONTEXT + 1).min(lines.len());
        shown[at.saturating_sub(CONTEXT)..until].fill(true);
    }
    shown
}

fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let head = old
        .iter()
        .zip(new)
        .take_while(|(old, new)| old == new)
        .count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let tail = old_rest
        .iter()
        .rev()
        .zip(new_rest.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let old_middle = &old_rest[..old_rest.len() - tail];
    let new_middle = &new_rest[..new_rest.len() - tail];
    let mut lines: Vec<_> = old[..head].iter().map(|text| Line::Same(text)).collect();
    if old_middle.len().saturating_mul(new_middle.len()) > CELLS_MAX {
        lines.extend(old_middle.iter().map(|text| Line::Gone(text)));
        lines.extend(new_middle.iter().map(|text| Line::New(text)));
    } else {
        lines.extend(align(old_middle, new_middle));
    }
    lines.extend(old[old.len() - tail..].iter().map(|text| Line::Same(text)));
    lines
}

fn align<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    // common[i][j]: how many lines old[i..] and new[j..] have in common, in one flat table.
    let width = new.len() + 1;
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            lines.push(Line::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if common[(i + 1) * width + j] >= common[i * width + j + 1] {
            lines.push(Line::Gone(old[i]));
            i += 1;
        } else {
            lines.push(Line::New(new[j]));
            j += 1;
        }
    }
    lines.extend(old[i..].iter().map(|text| Line::Gone(text)));
    lines.extend(new[j..].iter().map(|text| Line::New(text)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_and_its_surroundings_are_shown() {
        let before = "kind: Cluster\nname: api\na: 1\nb: 2\nc: 3\nd: 4\n";
        let after = "kind: Cluster\nname: api\na: 1\nb: 2\nc: 30\nd: 4\ne: 5\n";
        let expected = [
            "...", "  a: 1", "  b: 2", "- c: 3", "+ c: 30", "  d: 4", "+ e: 5",
        ];
        assert_eq!(changed_lines(before, after), expected);
    }

    #[test]
    fn a_moved_line_is_one_gone_and_one_new() {
        assert_eq!(
            changed_lines("a\nb\nc", "b\nc\na"),
            ["- a", "  b", "  c", "+ a"]
        );
    }

    #[test]
    fn from_or_to_nothing_is_all_lines() {
        assert_eq!(changed_lines("", "a\nb"), ["+ a", "+ b"]);
        assert_eq!(changed_lines("a\nb", ""), ["- a", "- b"]);
        assert!(changed_lines("a", "a").is_empty());
    }

    #[test]
    fn two_huge_texts_do_not_take_huge_memory() {
        let before: String = (0..5000).map(|n| format!("old {n}\n")).collect();
        let after: String = (0..5000).map(|n| format!("new {n}\n")).collect();
        assert_eq!(changed_lines(&before, &after).len(), 10_000);
    }
}
