/// The eight kinds of market data that the broker carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DataType {
    Orderbook,
    Trade,
    FundingRate,
    OpenInterest,
    LsrTopPosition,
    LsrAllAccount,
    VolatilityIndex,
    Liquidation,
}

/// How the first token of a subject is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectStyle {
    /// `trade-data.…`
    Suffixed,
    /// `trade.…`
    Plain,
    /// Either one, while publishers and readers move from one to the other.
    Both,
}

impl DataType {
    pub const ALL: [DataType; 8] = [
        Self::Orderbook,
        Self::Trade,
        Self::FundingRate,
        Self::OpenInterest,
        Self::LsrTopPosition,
        Self::LsrAllAccount,
        Self::VolatilityIndex,
        Self::Liquidation,
    ];

    /// The name used in settings, metrics and answers; also the plain subject's first token.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orderbook => "orderbook",
            Self::Trade => "trade",
            Self::FundingRate => "funding_rate",
            Self::OpenInterest => "open_interest",
            Self::LsrTopPosition => "lsr_top_position",
            Self::LsrAllAccount => "lsr_all_account",
            Self::VolatilityIndex => "volatility_index",
            Self::Liquidation => "liquidation",
        }
    }

    /// The first token that existing collectors publish under. `volatility_index-data` keeps its
    /// underscore: that is what they send.
    pub const fn suffixed_token(self) -> &'static str {
        match self {
            Self::Orderbook => "orderbook-data",
            Self::Trade => "trade-data",
            Self::FundingRate => "funding-rate-data",
            Self::OpenInterest => "open-interest-data",
            Self::LsrTopPosition => "lsr-top-position-data",
            Self::LsrAllAccount => "lsr-all-account-data",
            Self::VolatilityIndex => "volatility_index-data",
            Self::Liquidation => "liquidation-data",
        }
    }

    /// The family of a message, in either spelling of its subject.
    pub fn of_subject(subject: &str) -> Option<Self> {
        let first = subject.split('.').next().unwrap_or_default();
        Self::ALL.into_iter().find(|family| [family.suffixed_token(), family.name()].contains(&first))
    }

    /// The subject filters of this family.
    pub fn subjects(self, style: SubjectStyle) -> Vec<String> {
        let suffixed = || format!("{}.>", self.suffixed_token());
        let plain = || format!("{}.>", self.name());
        match style {
            SubjectStyle::Suffixed => vec![suffixed()],
            SubjectStyle::Plain => vec![plain()],
            SubjectStyle::Both => vec![suffixed(), plain()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_those_the_clients_use() {
        let suffixed: Vec<_> = DataType::ALL.iter().flat_map(|d| d.subjects(SubjectStyle::Suffixed)).collect();
        assert_eq!(
            suffixed,
            [
                "orderbook-data.>",
                "trade-data.>",
                "funding-rate-data.>",
                "open-interest-data.>",
                "lsr-top-position-data.>",
                "lsr-all-account-data.>",
                "volatility_index-data.>",
                "liquidation-data.>",
            ]
        );
        assert_eq!(DataType::FundingRate.subjects(SubjectStyle::Plain), ["funding_rate.>"]);
        for family in DataType::ALL {
            for subject in family.subjects(SubjectStyle::Both) {
                assert_eq!(DataType::of_subject(&subject), Some(family));
            }
        }
        assert_eq!(DataType::of_subject("trades.x"), None);
        assert_eq!(DataType::Trade.subjects(SubjectStyle::Both), ["trade-data.>", "trade.>"]);
    }
}
