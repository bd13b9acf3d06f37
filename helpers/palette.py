"""The course's colours: Okabe and Ito's palette, told apart with any kind of colour vision (jfly.uni-koeln.de/color)."""

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
SKY, AMBER = "#56B4E9", "#E69F00"  # for BLUE and ORANGE where the page is dark
