#include "client/plot.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace trainyard::client {
namespace {

constexpr int kLabelWidth = 9;

// Bits of the dot in column 0 or 1, row 0 to 3 of a braille character (U+2800 + bits).
constexpr unsigned char kDot[2][4] = {{0x01, 0x02, 0x04, 0x40}, {0x08, 0x10, 0x20, 0x80}};

class Canvas {
 public:
  Canvas(int columns, int rows) : columns_(columns), rows_(rows), cells_(static_cast<size_t>(columns) * rows) {}

  int dot_columns() const { return columns_ * 2; }
  int dot_rows() const { return rows_ * 4; }

  void Set(int x, int y) { cells_[static_cast<size_t>(y / 4) * columns_ + x / 2] |= kDot[x % 2][y % 4]; }

  // From one column of dots to the next: no gap in the vertical.
  void Line(int x0, int y0, int x1, int y1) {
    const int steps = std::max({std::abs(x1 - x0), std::abs(y1 - y0), 1});
    for (int i = 0; i <= steps; ++i) {
      const double t = static_cast<double>(i) / steps;
      Set(static_cast<int>(std::lround(x0 + t * (x1 - x0))), static_cast<int>(std::lround(y0 + t * (y1 - y0))));
    }
  }

  std::string Row(int row, bool unicode) const {
    std::string out;
    for (int column = 0; column < columns_; ++column) {
      const unsigned char bits = cells_[static_cast<size_t>(row) * columns_ + column];
      if (bits == 0) {
        out += ' ';
      } else if (!unicode) {
        out += '*';
      } else {
        out += static_cast<char>(0xE2);  // U+2800 + bits in UTF-8
        out += static_cast<char>(0xA0 | (bits >> 6));
        out += static_cast<char>(0x80 | (bits & 0x3F));
      }
    }
    while (!out.empty() && out.back() == ' ') out.pop_back();
    return out;
  }

 private:
  const int columns_;
  const int rows_;
  std::vector<unsigned char> cells_;
};

std::string Label(double value) {
  std::string text = absl::StrFormat("%.4g", value);
  if (text.size() > kLabelWidth) text = absl::StrFormat("%.2g", value);
  return text;
}

}  // namespace

std::string Plot(std::vector<PlotPoint> points, const PlotOptions& options) {
  points.erase(std::remove_if(points.begin(), points.end(),
                              [](const PlotPoint& p) { return !std::isfinite(p.x) || !std::isfinite(p.y); }),
               points.end());
  std::string out;
  if (!options.title.empty()) absl::StrAppend(&out, options.title, "\n");
  if (points.empty()) return absl::StrCat(out, "(no points)\n");
  std::sort(points.begin(), points.end(), [](const PlotPoint& a, const PlotPoint& b) { return a.x < b.x; });

  const auto [low, high] = std::minmax_element(points.begin(), points.end(),
                                               [](const PlotPoint& a, const PlotPoint& b) { return a.y < b.y; });
  double bottom = low->y;
  double top = high->y;
  if (top - bottom <= std::abs(top) * 1e-12) {  // a flat line goes through the middle
    const double margin = top == 0 ? 1 : std::abs(top) * 0.1;
    bottom -= margin;
    top += margin;
  }
  const double left = points.front().x;
  const double right = points.back().x;

  const int rows = std::max(options.height, 3);
  Canvas canvas(std::max(options.width, 30) - kLabelWidth - 2, rows);
  std::vector<double> sums(canvas.dot_columns());
  std::vector<int> counts(canvas.dot_columns());
  for (const PlotPoint& point : points) {
    const double t = right > left ? (point.x - left) / (right - left) : 0.5;
    const int column = static_cast<int>(std::lround(t * (canvas.dot_columns() - 1)));
    sums[column] += point.y;
    counts[column] += 1;
  }
  int last_x = -1;
  int last_y = 0;
  for (int x = 0; x < canvas.dot_columns(); ++x) {
    if (counts[x] == 0) continue;
    const double t = (sums[x] / counts[x] - bottom) / (top - bottom);
    const int y = static_cast<int>(std::lround((1 - t) * (canvas.dot_rows() - 1)));
    canvas.Line(last_x < 0 ? x : last_x, last_x < 0 ? y : last_y, x, y);
    last_x = x;
    last_y = y;
  }

  const char* const bar = options.unicode ? "\u2502" : "|";
  const char* const tick = options.unicode ? "\u2524" : "+";
  for (int row = 0; row < rows; ++row) {
    const bool is_labelled = row == 0 || row == rows - 1 || (row % 4 == 0 && rows - 1 - row >= 3);
    const double value = top - (top - bottom) * row / (rows - 1);
    const std::string curve = canvas.Row(row, options.unicode);
    absl::StrAppend(&out, absl::StrFormat("%*s ", kLabelWidth, is_labelled ? Label(value) : ""),
                    is_labelled ? tick : bar, curve, "\n");
  }
  const int columns = canvas.dot_columns() / 2;
  absl::StrAppend(&out, std::string(kLabelWidth + 1, ' '), options.unicode ? "\u2514" : "+");
  for (int i = 0; i < columns; ++i) absl::StrAppend(&out, options.unicode ? "\u2500" : "-");
  const std::string first = Label(left);
  const std::string last = absl::StrCat(Label(right), " ", options.x_label);
  const int gap = std::max(1, columns - static_cast<int>(first.size() + last.size()));
  absl::StrAppend(&out, "\n", std::string(kLabelWidth + 2, ' '), first, std::string(gap, ' '), last, "\n");
  return out;
}

}  // namespace trainyard::client
