//! How traffic is shared among levels: the first one gets all while it is healthy enough, and what
//! it cannot bear goes to the next.
//!
//! Owns Envoy's arithmetic of priorities ("Priority levels" and "Overprovisioning factor" in its
//! architecture overview). Never knows which endpoints a level has.

/// The endpoints of one level, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) all: usize,
    pub(crate) healthy: usize,
}

/// What a level gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Percent of the requests; those of all levels sum up to 100.
    pub(crate) percent: u32,
    /// Its unhealthy endpoints are used, too.
    pub(crate) panic: bool,
}

/// The share of each level. A level bears min(100, `overprovisioning` × healthy / all) percent, so
/// with 140 it overflows when less than 72 percent of it are healthy. Below `threshold` percent of
/// healthy ones a level panics, unless the levels together bear all traffic; one that is alone
/// panics in any case.
pub(crate) fn shares(census: &[Census], overprovisioning: u32, threshold: u8) -> Vec<Share> {
    let bears = |level: &Census| {
        let percent = level.healthy * overprovisioning as usize / level.all.max(1);
        percent.min(100) as u32
    };
    let bears: Vec<u32> = census.iter().map(bears).collect();
    let sum = bears.iter().sum::<u32>();
    let panics = |level: &Census| {
        let below = level.healthy * 100 < level.all * usize::from(threshold);
        below && (census.len() == 1 || sum < 100)
    };
    let panics: Vec<bool> = census.iter().map(panics).collect();
    // Where nobody is healthy, or all levels panic, each gets what its size is.
    let by_size = sum == 0 || panics.iter().all(|panic| *panic);
    let all: usize = census.iter().map(|level| level.all).sum();
    let wanted = census.iter().zip(&bears).map(|(level, bears)| {
        if by_size {
            (level.all * 100 / all.max(1)) as u32
        } else {
            bears * 100 / sum.min(100)
        }
    });
    let mut left = 100;
    let mut shares: Vec<Share> = wanted
        .zip(&panics)
        .map(|(wanted, panic)| {
            let percent = wanted.min(left);
            left -= percent;
            Share {
                percent,
                panic: *panic,
            }
        })
        .collect();
    // What rounding leaves goes to the first level that gets anything.
    if let Some(first) = shares.iter_mut().find(|share| share.percent > 0) {
        first.percent += left;
    } else if let Some(first) = shares.first_mut() {
        first.percent = 100;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The percents and who panics, for levels of so many healthy of all.
    fn of(levels: &[(usize, usize)], threshold: u8) -> (Vec<u32>, Vec<bool>) {
        let census = levels.iter().map(|&(healthy, all)| Census { all, healthy });
        let shares = shares(&census.collect::<Vec<_>>(), 140, threshold);
        (
            shares.iter().map(|share| share.percent).collect(),
            shares.iter().map(|share| share.panic).collect(),
        )
    }

    /// The tables of Envoy's documentation, rounding apart.
    #[test]
    fn the_next_level_gets_what_the_first_cannot_bear() {
        for (levels, percents) in [
            (vec![(100, 100), (100, 100)], vec![100, 0]),
            (vec![(72, 100), (72, 100)], vec![100, 0]),
            (vec![(71, 100), (71, 100)], vec![99, 1]),
            (vec![(50, 100), (50, 100)], vec![70, 30]),
            (vec![(25, 100), (100, 100)], vec![35, 65]),
            (vec![(0, 100), (100, 100)], vec![0, 100]),
            (vec![(20, 100), (20, 100), (100, 100)], vec![28, 28, 44]),
            (vec![(100, 100), (0, 100), (0, 100)], vec![100, 0, 0]),
            (vec![(5, 5)], vec![100]),
            (vec![(3, 5)], vec![100]),
        ] {
            let (found, panics) = of(&levels, 50);
            assert_eq!(found, percents, "{levels:?}");
            assert!(!panics.contains(&true), "{levels:?}");
        }
    }

    #[test]
    fn levels_panic_when_all_together_bear_too_little() {
        // 35 and 35 of 100: shared evenly, and both are below the threshold.
        assert_eq!(
            of(&[(25, 100), (25, 100)], 50),
            (vec![50, 50], vec![true, true])
        );
        assert_eq!(
            of(&[(5, 100), (60, 100)], 50),
            (vec![8, 92], vec![true, false])
        );
        assert_eq!(of(&[(0, 10), (0, 30)], 50), (vec![25, 75], vec![true; 2]));
        assert_eq!(of(&[(25, 100), (25, 100)], 0).1, [false, false]);
        assert_eq!(of(&[(0, 10), (0, 30)], 0).1, [false, false]);
        // Alone, the threshold alone decides.
        assert_eq!(of(&[(90, 100)], 100), (vec![100], vec![true]));
    }

    #[test]
    fn shares_sum_up_to_all_and_only_who_can_serve_gets_any() {
        for first in 0..=7 {
            for second in 0..=5 {
                for third in 0..=3 {
                    let levels = [(first, 7), (second, 5), (third, 3)];
                    for threshold in [0, 50, 100] {
                        let (percents, panics) = of(&levels, threshold);
                        assert_eq!(percents.iter().sum::<u32>(), 100, "{levels:?}");
                        let any = first + second + third > 0 || threshold > 0;
                        let served = levels.iter().zip(&percents).zip(&panics);
                        for (((healthy, _), percent), panic) in served {
                            let serves = *healthy > 0 || *panic;
                            assert!(serves || *percent == 0 || !any, "{levels:?} {percents:?}");
                        }
                    }
                }
            }
        }
    }
}
